"""What is to be written to one map, and what the map holds meanwhile.

A change that is taken back before it was written costs nothing, and what an earlier run left is
recognised when somebody wants it. What the full map refuses waits until something goes.
"""

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import Final

from bpf.errors import BpfError, MapFullError
from bpf.maps import BpfMap

UNSURE: Final = b""
"""What the map holds after a write that failed: no value, so that it is written again."""

Attribute = Callable[[bytes, bytes], int]
"""From an entry found in the map to the cluster it is there for; 0: nobody can tell."""


class Pending:
    """The one hand that writes a map. ``wanted`` says what a key should have now."""

    def __init__(self, target: BpfMap, wanted: Callable[[bytes], bytes | None]) -> None:
        self.map = target
        self.writes = 0
        self._wanted = wanted
        self._puts: dict[bytes, bytes | None] = {}
        self._drops: dict[bytes, bytes | None] = {}
        """Keys to write and to remove, with what the map holds now."""
        self._no_room: dict[bytes, None] = {}
        """Keys that the full map refused."""
        self._found: dict[bytes, bytes] = {}
        """Entries of an earlier run that nobody has wanted yet."""
        self._found_of: dict[int, list[bytes]] = {}
        """By cluster id: keys of entries that an earlier run left because of it."""

    # -- what an earlier run left -----------------------------------------------------------------

    def adopt(self, attribute: Attribute) -> None:
        """Take over what the map holds, before anything is wanted."""
        for key, value in self.map.items():
            self._found[key] = value
            self._found_of.setdefault(attribute(key, value), []).append(key)

    def found(self) -> AbstractSet[int]:
        """Clusters of which an earlier run left something that has not been pruned."""
        return self._found_of.keys()

    def prune(self, cluster_id: int) -> None:
        """What is left of the cluster's earlier entries goes, unless somebody has wanted it."""
        for key in self._found_of.pop(cluster_id, ()):
            value = self._found.pop(key, None)
            if value is not None:
                self._drops[key] = value

    # -- what is to be done -----------------------------------------------------------------------

    def change(self, key: bytes, before: bytes | None, wanted: bytes | None) -> None:
        """What was wanted was ``before``, and is ``wanted`` now; None: it should not be there."""
        held = self._held(key, before)
        if wanted != held:
            (self._drops if wanted is None else self._puts)[key] = held

    def _held(self, key: bytes, before: bytes | None) -> bytes | None:
        """What the map holds: what is pending says so; else what was wanted, or was found."""
        for pending in (self._puts, self._drops):
            if key in pending:
                return pending.pop(key)
        if key in self._no_room:
            del self._no_room[key]
            return None
        return self._found.pop(key, None) if before is None else before

    @property
    def puts(self) -> int:
        """Entries to write."""
        return len(self._puts)

    @property
    def drops(self) -> int:
        """Entries to remove."""
        return len(self._drops)

    @property
    def refused(self) -> int:
        """Entries for which the map has no room."""
        return len(self._no_room)

    # -- doing it ---------------------------------------------------------------------------------

    def next_puts(self, most: int) -> list[bytes]:
        """Keys that ``write`` would write."""
        return list(islice(self._puts, most))

    def write(self, most: int) -> None:
        """Write up to ``most`` entries."""
        keys = self.next_puts(most)
        entries = [(key, value) for key in keys if (value := self._wanted(key)) is not None]
        try:
            self._put(entries)
        except BpfError:
            self._puts.update(dict.fromkeys(keys, UNSURE))
            raise
        _forget(self._puts, keys)
        self.writes += len(entries)

    def _put(self, entries: list[tuple[bytes, bytes]]) -> None:
        """All at once; in a full map one by one, as known keys can be changed there, too."""
        try:
            self.map.put_many(entries)
        except MapFullError as full:
            for entry in entries[full.applied :]:
                try:
                    self.map.put_many([entry])
                except MapFullError:
                    self._no_room[entry[0]] = None

    def remove(self, most: int) -> None:
        """Remove up to ``most`` entries."""
        keys = list(islice(self._drops, most))
        try:
            self.map.drop_many(keys)
        except BpfError:
            self._drops.update(dict.fromkeys(keys, UNSURE))
            raise
        _forget(self._drops, keys)
        self.writes += len(keys)
        for key in list(islice(self._no_room, len(keys))):
            del self._no_room[key]
            self._puts[key] = None


def _forget(pending: dict[bytes, bytes | None], keys: Iterable[bytes]) -> None:
    for key in keys:
        del pending[key]
    if not pending:
        pending.clear()  # a dict that was large is slow to walk until it is emptied at once
