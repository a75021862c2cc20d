"""A BPF map as the program sees it, and one in memory that refuses what the kernel refuses."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Final, Protocol

from bpf.errors import MapFullError, MapSizeError


class MapKind(IntEnum):
    """The kernel's map types that we use."""

    HASH = 1
    ARRAY = 2
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LPM_TRIE = 11
    HASH_OF_MAPS = 13
    RING = 27


class BpfMap(Protocol):
    """Keys to values, both of fixed size. An update of one entry is atomic for the programs."""

    @property
    def name(self) -> str: ...
    @property
    def key_size(self) -> int: ...
    @property
    def value_size(self) -> int: ...
    @property
    def max_entries(self) -> int: ...

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every entry once, in no order; entries that change meanwhile may be seen or not."""

    def get(self, key: bytes) -> bytes | None:
        """The value; in a prefix map that of the longest prefix that matches the key."""

    def put_many(self, entries: Sequence[tuple[bytes, bytes]]) -> None:
        """Writes in the order given. MapFullError says how many were applied before."""

    def drop_many(self, keys: Sequence[bytes]) -> None:
        """Absent keys are fine."""


class Tables(Protocol):
    """Selection tables by service id: a hash of arrays, each replaced as a whole by one update."""

    @property
    def name(self) -> str: ...
    @property
    def max_entries(self) -> int: ...
    @property
    def table_size(self) -> int:
        """Bytes of one table."""

    def swap(self, keys: Sequence[bytes], table: bytes) -> None:
        """All `keys` share one new array, filled before it can be seen."""

    def swap_many(self, tables: Sequence[tuple[Sequence[bytes], bytes]]) -> None:
        """Several at once: the kernel waits for its readers once, not once for each."""

    def read(self, key: bytes) -> bytes | None: ...
    def keys(self) -> Iterator[bytes]: ...
    def drop(self, keys: Sequence[bytes]) -> None:
        """Absent keys are fine."""


class Counters(Protocol):
    """Per-CPU counters, added up."""

    def read(self) -> Mapping[bytes, tuple[int, int]]:
        """Key to (count, bytes)."""


def check_sizes(at: BpfMap, key: bytes, value: bytes | None = None) -> None:
    """Raises MapSizeError before anything reaches the kernel."""
    if len(key) != at.key_size:
        raise MapSizeError(at.name, "a key", got=len(key), expected=at.key_size)
    if value is not None and len(value) != at.value_size:
        raise MapSizeError(at.name, "a value", got=len(value), expected=at.value_size)


TABLE_KEY_SIZE: Final = 2


def check_table_sizes(at: Tables, keys: Sequence[bytes], table: bytes | None = None) -> None:
    """Raises MapSizeError before anything reaches the kernel."""
    for key in keys:
        if len(key) != TABLE_KEY_SIZE:
            raise MapSizeError(at.name, "a key", got=len(key), expected=TABLE_KEY_SIZE)
    if table is not None and len(table) != at.table_size:
        raise MapSizeError(at.name, "a table", got=len(table), expected=at.table_size)


def prefix_matches(entry: bytes, key: bytes) -> bool:
    """Whether a prefix map's entry covers a key; both start with their length in bits."""
    bits = int.from_bytes(entry[:4], "little")
    if bits > int.from_bytes(key[:4], "little"):
        return False
    ours, theirs = int.from_bytes(entry[4:], "big"), int.from_bytes(key[4:], "big")
    ignored = (len(entry) - 4) * 8 - bits
    return ours >> ignored == theirs >> ignored


class DictMap:
    """A BpfMap in memory. `writes` counts entries put and dropped, as the kernel would."""

    def __init__(
        self,
        name: str,
        *,
        key_size: int,
        value_size: int,
        max_entries: int,
        kind: MapKind = MapKind.HASH,
    ) -> None:
        self.name = name
        self.key_size = key_size
        self.value_size = value_size
        self.max_entries = max_entries
        self.kind = kind
        self.writes = 0
        self._entries: OrderedDict[bytes, bytes] = OrderedDict()

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        yield from tuple(self._entries.items())

    def get(self, key: bytes) -> bytes | None:
        check_sizes(self, key)
        if self.kind is not MapKind.LPM_TRIE:
            return self._entries.get(key)
        covering = [entry for entry in self._entries if prefix_matches(entry, key)]
        if not covering:
            return None
        return self._entries[max(covering, key=lambda entry: int.from_bytes(entry[:4], "little"))]

    def put_many(self, entries: Sequence[tuple[bytes, bytes]]) -> None:
        for key, value in entries:
            check_sizes(self, key, value)
        for applied, (key, value) in enumerate(entries):
            self._put(key, value, applied)

    def _put(self, key: bytes, value: bytes, applied: int) -> None:
        if key not in self._entries and len(self._entries) >= self.max_entries:
            if self.kind is not MapKind.LRU_HASH:
                raise MapFullError(self.name, self.max_entries, applied=applied)
            self._entries.popitem(last=False)
        self._entries[key] = value
        self.writes += 1

    def drop_many(self, keys: Sequence[bytes]) -> None:
        for key in keys:
            check_sizes(self, key)
        for key in keys:
            if self._entries.pop(key, None) is not None:
                self.writes += 1


class DictTables:
    """Tables in memory. `writes` counts updates of the outer map."""

    def __init__(self, name: str, *, table_size: int, max_entries: int) -> None:
        self.name = name
        self.table_size = table_size
        self.max_entries = max_entries
        self.writes = 0
        self._tables: dict[bytes, bytes] = {}

    def swap(self, keys: Sequence[bytes], table: bytes) -> None:
        self.swap_many([(keys, table)])

    def swap_many(self, tables: Sequence[tuple[Sequence[bytes], bytes]]) -> None:
        for keys, table in tables:
            check_table_sizes(self, keys, table)
        entries = [(key, table) for keys, table in tables for key in keys]
        for applied, (key, table) in enumerate(entries):
            if key not in self._tables and len(self._tables) >= self.max_entries:
                raise MapFullError(self.name, self.max_entries, applied=applied)
            self._tables[key] = table
            self.writes += 1

    def read(self, key: bytes) -> bytes | None:
        check_table_sizes(self, [key])
        return self._tables.get(key)

    def keys(self) -> Iterator[bytes]:
        yield from tuple(self._tables)

    def drop(self, keys: Sequence[bytes]) -> None:
        check_table_sizes(self, keys)
        for key in keys:
            if self._tables.pop(key, None) is not None:
                self.writes += 1


class DictCounters:
    """Counters in memory: what a test put there."""

    def __init__(self, counts: Mapping[bytes, tuple[int, int]] | None = None) -> None:
        self.counts = dict(counts or {})

    def read(self) -> Mapping[bytes, tuple[int, int]]:
        return dict(self.counts)
