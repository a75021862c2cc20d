"""Maps in the kernel, by bpf(2): in batches where the kernel can, one by one where it cannot."""

import ctypes
import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from struct import Struct
from typing import ClassVar, Final, Self

from bpf import syscalls
from bpf.errors import MapCallError, MapFullError
from bpf.maps import MapKind, check_sizes, check_table_sizes

BATCH: Final = 20_000
TABLES_AT_ONCE: Final = 256  # each is an open file until the kernel has it
_CURSOR_SIZE: Final = 64  # at least a whole key: that is what prefix maps write there
_NO_BATCH: Final = frozenset({errno.EINVAL, errno.ENOSYS, syscalls.ENOTSUPP})
_NO_ROOM: Final = frozenset({errno.E2BIG, errno.ENOSPC, errno.ENOMEM})


def possible_cpus() -> int:
    """How many parts a per-CPU value has."""
    ranges = Path("/sys/devices/system/cpu/possible").read_text().strip()
    return int(ranges.replace(",", "-").split("-")[-1]) + 1


class _Handle:
    """An open map: owns the file descriptor."""

    QUICK: ClassVar = False
    """Whether a change of an entry takes microseconds: then no other thread needs to run."""

    def __init__(self, fd: int, name: str = "", *, batches: bool = True) -> None:
        self.fd = fd
        self._batches = batches
        self.info = syscalls.map_info(fd)
        self.name = name or self.info.name
        self.key_size = self.info.key_size
        self.max_entries = self.info.max_entries

    @classmethod
    def pinned(cls, path: Path, *, read_only: bool = False) -> Self:
        """OSError when nothing is pinned there."""
        flags = syscalls.F_RDONLY if read_only else 0
        return cls(syscalls.open_pin(path, flags), path.name)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _next_key(self, key: bytes | None, found: "ctypes.Array[ctypes.c_char]") -> bool:
        at = syscalls.address_of(key) if key is not None else 0
        try:
            syscalls.element(syscalls.MAP_NEXT_KEY, self.fd, at, ctypes.addressof(found))
        except FileNotFoundError:
            return False
        except OSError as error:
            raise MapCallError(self.name, "listing", error) from error
        return True

    def _keys(self) -> Iterator[bytes]:
        found = ctypes.create_string_buffer(self.key_size)
        key: bytes | None = None
        while self._next_key(key, found):
            key = found.raw
            yield key

    def _lookup(self, key: bytes, size: int) -> bytes | None:
        value = ctypes.create_string_buffer(size)
        at = syscalls.address_of(key)
        try:
            syscalls.element(syscalls.MAP_LOOKUP, self.fd, at, ctypes.addressof(value))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise MapCallError(self.name, "looking up", error) from error
        return value.raw

    def _put(self, key: bytes, value: bytes, applied: int = 0) -> None:
        at, what = syscalls.address_of(key), syscalls.address_of(value)
        try:
            syscalls.element(syscalls.MAP_UPDATE, self.fd, at, what, quick=self.QUICK)
        except OSError as error:
            raise self._refused("writing", error, applied) from error

    def _drop(self, key: bytes) -> None:
        try:
            at = syscalls.address_of(key)
            syscalls.element(syscalls.MAP_DELETE, self.fd, at, quick=self.QUICK)
        except FileNotFoundError:
            return
        except OSError as error:
            raise MapCallError(self.name, "deleting", error) from error

    def _put_singly(self, entries: Sequence[tuple[bytes, bytes]], applied: int) -> None:
        for done, (key, value) in enumerate(entries, applied):
            self._put(key, value, done)

    def _put_batch(self, entries: Sequence[tuple[bytes, bytes]], applied: int) -> None:
        if len(entries) <= 1 or not self._batches:
            self._put_singly(entries, applied)
            return
        keys = b"".join([key for key, _ in entries])
        values = b"".join([value for _, value in entries])
        done, error = syscalls.batch(
            syscalls.BATCH_UPDATE,
            self.fd,
            keys=syscalls.address_of(keys),
            values=syscalls.address_of(values),
            count=len(entries),
            quick=self.QUICK,
        )
        if error is None:
            return
        if error.errno in _NO_BATCH:
            self._put_singly(entries, applied)  # raises if an entry is at fault
            self._batches = False
            return
        raise self._refused("writing", error, applied + done) from error

    def _drop_batch(self, keys: Sequence[bytes]) -> None:
        if len(keys) <= 1 or not self._batches:
            for key in keys:
                self._drop(key)
            return
        packed = b"".join(keys)
        first = syscalls.address_of(packed)
        done = 0
        while done < len(keys):
            count, error = syscalls.batch(
                syscalls.BATCH_DELETE,
                self.fd,
                keys=first + done * self.key_size,
                count=len(keys) - done,
                quick=self.QUICK,
            )
            if error is None:
                return
            if error.errno in _NO_BATCH:
                for key in keys[done:]:
                    self._drop(key)
                self._batches = False
                return
            if error.errno != errno.ENOENT:
                raise MapCallError(self.name, "deleting", error) from error
            done += count + 1  # the kernel stops at an absent key: go on behind it

    def _refused(self, operation: str, error: OSError, applied: int) -> Exception:
        if error.errno in _NO_ROOM:
            return MapFullError(self.name, self.max_entries, applied=applied)
        return MapCallError(self.name, operation, error)


def _slices(data: bytes, size: int, count: int) -> Iterator[bytes]:
    for start in range(0, size * count, size):
        yield data[start : start + size]


class KernelMap(_Handle):
    """A BpfMap over a descriptor. `batches=False` uses one call per entry, as old kernels need."""

    QUICK = True

    def __init__(self, fd: int, name: str = "", *, batches: bool = True) -> None:
        super().__init__(fd, name, batches=batches)
        self.value_size = self.info.value_size

    def get(self, key: bytes) -> bytes | None:
        check_sizes(self, key)
        return self._lookup(key, self.value_size)

    def put_many(self, entries: Sequence[tuple[bytes, bytes]]) -> None:
        for key, value in entries:
            check_sizes(self, key, value)
        for start in range(0, len(entries), BATCH):
            self._put_batch(entries[start : start + BATCH], start)

    def drop_many(self, keys: Sequence[bytes]) -> None:
        for key in keys:
            check_sizes(self, key)
        for start in range(0, len(keys), BATCH):
            self._drop_batch(keys[start : start + BATCH])

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        if self._batches:
            try:
                yield from self._items_batched()
            except MapCallError as error:
                if error.errno not in _NO_BATCH:
                    raise
                self._batches = False
            else:
                return
        for key in self._keys():
            value = self._lookup(key, self.value_size)
            if value is not None:
                yield key, value

    def _items_batched(self) -> Iterator[tuple[bytes, bytes]]:
        for count, keys, values in _batches(self, self.value_size):
            yield from zip(
                _slices(keys, self.key_size, count),
                _slices(values, self.value_size, count),
                strict=True,
            )


def _batches(at: _Handle, value_size: int) -> Iterator[tuple[int, bytes, bytes]]:
    """Whole map in lookup batches: how many, their keys, their values."""
    room = min(BATCH, max(at.max_entries, 1))
    before = after = ctypes.create_string_buffer(_CURSOR_SIZE)
    first = True
    while True:
        keys = ctypes.create_string_buffer(at.key_size * room)
        values = ctypes.create_string_buffer(value_size * room)
        count, error = syscalls.batch(
            syscalls.BATCH_LOOKUP,
            at.fd,
            keys=ctypes.addressof(keys),
            values=ctypes.addressof(values),
            count=room,
            cursor=0 if first else ctypes.addressof(before),
            after=ctypes.addressof(after),
        )
        if error is not None and error.errno == errno.ENOSPC:
            room *= 2  # one hash bucket has more entries than there was room for
            continue
        if error is not None and error.errno != errno.ENOENT:
            raise MapCallError(at.name, "listing", error) from error
        yield count, keys.raw, values.raw
        if error is not None:
            return
        first = False


class KernelTables(_Handle):
    """Tables over a hash-of-maps file descriptor. `table_size` is in bytes."""

    _FD: Final = Struct("=I")
    _ZERO: Final = bytes(4)

    def __init__(self, fd: int, name: str = "", *, table_size: int = 0) -> None:
        super().__init__(fd, name)
        self.table_size = table_size

    def swap(self, keys: Sequence[bytes], table: bytes) -> None:
        self.swap_many([(keys, table)])

    def swap_many(self, tables: Sequence[tuple[Sequence[bytes], bytes]]) -> None:
        for keys, table in tables:
            check_table_sizes(self, keys, table)
        applied = 0
        for start in range(0, len(tables), TABLES_AT_ONCE):
            applied += self._swap(tables[start : start + TABLES_AT_ONCE], applied)

    def _swap(self, tables: Sequence[tuple[Sequence[bytes], bytes]], applied: int) -> int:
        entries: list[tuple[bytes, bytes]] = []
        with ExitStack() as inner_maps:
            for keys, table in tables:
                inner = self._make()
                inner_maps.callback(syscalls.close, inner)
                self._fill(inner, table)
                entries += [(key, self._FD.pack(inner)) for key in keys]
            self._put_batch(entries, applied)
        return len(entries)

    def _make(self) -> int:
        name = self.name.removeprefix("cilium_")
        try:
            return syscalls.map_create(MapKind.ARRAY, 4, self.table_size, 1, name=name, quick=True)
        except OSError as error:
            raise MapCallError(self.name, "making a table", error) from error

    def _fill(self, inner: int, table: bytes) -> None:
        zero, content = syscalls.address_of(self._ZERO), syscalls.address_of(table)
        try:
            syscalls.element(syscalls.MAP_UPDATE, inner, zero, content, quick=True)
        except OSError as error:
            raise MapCallError(self.name, "filling a table", error) from error

    def read(self, key: bytes) -> bytes | None:
        raw = self._lookup(key, 4)
        if raw is None:
            return None
        try:
            inner = syscalls.map_by_id(self._FD.unpack(raw)[0])
        except FileNotFoundError:
            return None  # replaced between the two calls; the next read sees the new one
        try:
            value = ctypes.create_string_buffer(syscalls.map_info(inner).value_size)
            zero = syscalls.address_of(self._ZERO)
            syscalls.element(syscalls.MAP_LOOKUP, inner, zero, ctypes.addressof(value))
            return value.raw
        finally:
            os.close(inner)

    def keys(self) -> Iterator[bytes]:
        return self._keys()

    def drop(self, keys: Sequence[bytes]) -> None:
        check_table_sizes(self, keys)
        self._drop_batch(keys)


class KernelCounters(_Handle):
    """A per-CPU hash of (count, bytes) pairs."""

    _PAIR: Final = Struct("=QQ")

    def read(self) -> Mapping[bytes, tuple[int, int]]:
        size = self._PAIR.size * possible_cpus()
        sums: dict[bytes, tuple[int, int]] = {}
        for key in self._keys():
            raw = self._lookup(key, size)
            if raw is not None:
                parts = list(self._PAIR.iter_unpack(raw))
                sums[key] = (sum(part[0] for part in parts), sum(part[1] for part in parts))
        return sums

    def reset(self) -> None:
        """Forgets every counter; for tools and tests."""
        for key in list(self._keys()):
            with suppress(MapCallError):
                self._drop(key)
