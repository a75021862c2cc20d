"""Who wants which key: the first to claim it owns it, the others wait their turn."""

from collections.abc import Hashable, Iterator, Mapping
from typing import Generic, TypeVar

U = TypeVar("U", bound=Hashable)


class Claims(Generic[U]):
    """Keys and values by claimant, and what changed since it was last asked."""

    def __init__(self) -> None:
        """Nothing is claimed."""
        self._owned: dict[str, tuple[U, bytes]] = {}
        self._waiting: dict[str, dict[U, bytes]] = {}
        self._keys: dict[U, tuple[str, ...]] = {}
        self._before: dict[str, bytes | None] = {}

    def __contains__(self, key: str) -> bool:
        """Whether anybody claims the key."""
        return key in self._owned

    def claim(self, claimant: U, wanted: Mapping[str, bytes]) -> None:
        """All that the claimant wants from now on; what it wanted before is given up."""
        for key in self._keys.get(claimant, ()):
            if key not in wanted:
                self._release(claimant, key)
        for key, value in wanted.items():
            self._take(claimant, key, value)
        if wanted:
            self._keys[claimant] = tuple(wanted)
        else:
            self._keys.pop(claimant, None)

    def changes(self) -> list[tuple[str, bytes | None]]:
        """Keys whose value differs from the last time: new values first, then (None) removals."""
        puts: list[tuple[str, bytes | None]] = []
        gone: list[tuple[str, bytes | None]] = []
        for key, before in self._before.items():
            now = self._owned[key][1] if key in self._owned else None
            if now != before:
                (gone if now is None else puts).append((key, now))
        self._before = {}
        return puts + gone

    def waiting(self) -> Iterator[tuple[str, U, list[U]]]:
        """Contested keys: the key, its owner, and who waits."""
        for key, queue in self._waiting.items():
            yield key, self._owned[key][0], list(queue)

    def items(self) -> Iterator[tuple[str, bytes]]:
        """Every key and the value of its owner."""
        for key, (_, value) in self._owned.items():
            yield key, value

    def _take(self, claimant: U, key: str, value: bytes) -> None:
        owned = self._owned.get(key)
        if owned is not None and owned[0] != claimant:
            self._waiting.setdefault(key, {})[claimant] = value
        elif owned is None or owned[1] != value:
            self._note(key)
            self._owned[key] = (claimant, value)

    def _release(self, claimant: U, key: str) -> None:
        queue = self._waiting.get(key, {})
        if self._owned[key][0] != claimant:
            del queue[claimant]
        else:
            self._note(key)
            del self._owned[key]
            if queue:
                heir = next(iter(queue))
                self._owned[key] = (heir, queue.pop(heir))
        if not queue:
            self._waiting.pop(key, None)

    def _note(self, key: str) -> None:
        if key not in self._before:
            self._before[key] = self._owned[key][1] if key in self._owned else None
