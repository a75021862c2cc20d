"""For tests of and over the kernel edge: the map contract, faults, places that clean up."""

import ctypes
import os
import random
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

import pytest

from bpf.errors import MapFullError, MapSizeError
from bpf.maps import BpfMap, MapKind, Tables

Result = TypeVar("Result")


class FaultyMap:
    """A map that refuses the next writes it is told to refuse, whatever map it stands before."""

    def __init__(self, inner: BpfMap) -> None:
        self.inner = inner
        self.faults: list[Exception] = []

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def key_size(self) -> int:
        return self.inner.key_size

    @property
    def value_size(self) -> int:
        return self.inner.value_size

    @property
    def max_entries(self) -> int:
        return self.inner.max_entries

    def refuse(self, *faults: Exception) -> None:
        """One for each of the next writes."""
        self.faults.extend(faults)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        return self.inner.items()

    def get(self, key: bytes) -> bytes | None:
        return self.inner.get(key)

    def put_many(self, entries: Sequence[tuple[bytes, bytes]]) -> None:
        self._fail()
        self.inner.put_many(entries)

    def drop_many(self, keys: Sequence[bytes]) -> None:
        self._fail()
        self.inner.drop_many(keys)

    def _fail(self) -> None:
        if self.faults:
            raise self.faults.pop(0)


class MakeMap(Protocol):
    def __call__(
        self,
        *,
        key_size: int = 4,
        value_size: int = 8,
        max_entries: int = 8,
        kind: MapKind = MapKind.HASH,
    ) -> BpfMap: ...


def key(number: int) -> bytes:
    return number.to_bytes(4, "big")


def value(number: int) -> bytes:
    return number.to_bytes(8, "big")


class MapContract:
    """What every BpfMap promises. A subclass gives the fixture `make`."""

    def test_what_was_put_is_read_back(self, make: MakeMap) -> None:
        a_map = make()
        a_map.put_many([(key(1), value(10)), (key(2), value(20))])
        assert a_map.get(key(1)) == value(10)
        assert dict(a_map.items()) == {key(1): value(10), key(2): value(20)}

    def test_a_single_entry_is_put_and_replaced(self, make: MakeMap) -> None:
        a_map = make()
        a_map.put_many([(key(1), value(10))])
        a_map.put_many([(key(1), value(11))])
        assert dict(a_map.items()) == {key(1): value(11)}

    def test_an_absent_key_reads_as_none(self, make: MakeMap) -> None:
        assert make().get(key(1)) is None

    def test_an_empty_map_has_no_items(self, make: MakeMap) -> None:
        assert list(make().items()) == []

    def test_nothing_to_do_is_fine(self, make: MakeMap) -> None:
        a_map = make()
        a_map.put_many([])
        a_map.drop_many([])
        assert list(a_map.items()) == []

    def test_the_later_of_two_values_for_one_key_stays(self, make: MakeMap) -> None:
        a_map = make()
        a_map.put_many([(key(1), value(10)), (key(1), value(11))])
        assert a_map.get(key(1)) == value(11)

    def test_dropping_takes_away_only_what_is_named(self, make: MakeMap) -> None:
        a_map = make()
        a_map.put_many([(key(n), value(n)) for n in range(5)])
        a_map.drop_many([key(0), key(3)])
        assert sorted(dict(a_map.items())) == [key(1), key(2), key(4)]

    @pytest.mark.parametrize("absent", [[7], [7, 0], [0, 7], [0, 7, 8, 1], [7, 8, 9]])
    def test_dropping_absent_keys_is_fine(self, make: MakeMap, absent: list[int]) -> None:
        a_map = make()
        a_map.put_many([(key(n), value(n)) for n in range(3)])
        a_map.drop_many([key(n) for n in absent])
        assert sorted(dict(a_map.items())) == [key(n) for n in range(3) if n not in absent]

    def test_a_full_map_says_how_far_it_came(self, make: MakeMap) -> None:
        a_map = make(max_entries=8)
        with pytest.raises(MapFullError, match="room for 8 entries") as full:
            a_map.put_many([(key(n), value(n)) for n in range(10)])
        assert full.value.applied == 8
        assert len(dict(a_map.items())) == 8

    def test_a_full_map_still_takes_new_values_for_old_keys(self, make: MakeMap) -> None:
        a_map = make(max_entries=8)
        a_map.put_many([(key(n), value(n)) for n in range(8)])
        a_map.put_many([(key(0), value(99))])
        with pytest.raises(MapFullError):
            a_map.put_many([(key(8), value(8))])
        assert a_map.get(key(0)) == value(99)

    @pytest.mark.parametrize(
        ("bad_key", "bad_value"), [(b"abc", bytes(8)), (bytes(5), bytes(8)), (bytes(4), b"x")]
    )
    def test_wrong_sizes_are_refused_before_anything_is_written(
        self, make: MakeMap, bad_key: bytes, bad_value: bytes
    ) -> None:
        a_map = make()
        with pytest.raises(MapSizeError):
            a_map.put_many([(key(1), value(1)), (bad_key, bad_value)])
        assert list(a_map.items()) == []

    def test_wrong_keys_are_refused_when_reading_and_dropping(self, make: MakeMap) -> None:
        a_map = make()
        with pytest.raises(MapSizeError):
            a_map.get(b"abc")
        with pytest.raises(MapSizeError):
            a_map.drop_many([key(1), b"abc"])

    def test_a_large_map_is_written_listed_and_emptied(self, make: MakeMap) -> None:
        a_map = make(max_entries=50_000)
        entries = [(key(n), value(n)) for n in range(45_000)]
        a_map.put_many(entries)
        assert dict(a_map.items()) == dict(entries)
        a_map.drop_many([k for k, _ in entries])
        assert list(a_map.items()) == []

    def test_a_prefix_map_answers_with_the_longest_match(self, make: MakeMap) -> None:
        a_map = make(key_size=8, kind=MapKind.LPM_TRIE, max_entries=100)
        wide, narrow = _prefix(8, 10, 0, 0, 0), _prefix(24, 10, 1, 2, 0)
        a_map.put_many([(wide, value(1)), (narrow, value(2))])
        assert a_map.get(_prefix(32, 10, 1, 2, 3)) == value(2)
        assert a_map.get(_prefix(32, 10, 9, 9, 9)) == value(1)
        assert a_map.get(_prefix(16, 10, 1, 0, 0)) == value(1)
        assert a_map.get(_prefix(32, 11, 1, 2, 3)) is None
        assert dict(a_map.items()) == {wide: value(1), narrow: value(2)}
        a_map.drop_many([narrow])
        assert a_map.get(_prefix(32, 10, 1, 2, 3)) == value(1)

    def test_a_large_prefix_map_is_listed_whole(self, make: MakeMap) -> None:
        a_map = make(key_size=8, kind=MapKind.LPM_TRIE, max_entries=50_000)
        entries = {_prefix(32, *n.to_bytes(4, "big")): value(n) for n in range(25_000)}
        a_map.put_many(list(entries.items()))
        assert dict(a_map.items()) == entries

    def test_a_map_that_forgets_makes_room_by_itself(self, make: MakeMap) -> None:
        a_map = make(kind=MapKind.LRU_HASH, max_entries=1_024)
        a_map.put_many([(key(n), value(n)) for n in range(5_000)])
        assert 0 < len(dict(a_map.items())) <= 1_024


def _prefix(bits: int, *address: int) -> bytes:
    return bits.to_bytes(4, "little") + bytes(address)


class TablesContract:
    """What Tables promise. A subclass gives `tables`: four bytes a table, room for 8."""

    def test_a_table_is_read_back(self, tables: Tables) -> None:
        tables.swap([b"\0\1"], b"abcd")
        assert tables.read(b"\0\1") == b"abcd"
        assert tables.read(b"\0\2") is None

    def test_a_table_is_replaced_as_a_whole(self, tables: Tables) -> None:
        tables.swap([b"\0\1"], b"abcd")
        tables.swap([b"\0\1"], b"efgh")
        assert tables.read(b"\0\1") == b"efgh"

    def test_one_table_serves_many_keys(self, tables: Tables) -> None:
        tables.swap([b"\0\1", b"\0\2"], b"abcd")
        tables.swap([b"\0\2"], b"efgh")
        assert [tables.read(b"\0\1"), tables.read(b"\0\2")] == [b"abcd", b"efgh"]

    def test_several_tables_are_swapped_at_once(self, tables: Tables) -> None:
        tables.swap_many([([b"\0\1", b"\0\2"], b"abcd"), ([b"\0\3"], b"efgh"), ([], b"ijkl")])
        assert sorted(tables.keys()) == [b"\0\1", b"\0\2", b"\0\3"]
        assert [tables.read(k) for k in sorted(tables.keys())] == [b"abcd", b"abcd", b"efgh"]

    def test_dropped_tables_are_gone_and_absent_ones_do_no_harm(self, tables: Tables) -> None:
        tables.swap([b"\0\1", b"\0\2"], b"abcd")
        tables.drop([b"\0\7", b"\0\1", b"\0\x08"])
        tables.drop([])
        assert list(tables.keys()) == [b"\0\2"]

    def test_wrong_sizes_are_refused(self, tables: Tables) -> None:
        with pytest.raises(MapSizeError, match="a table of 3 bytes, expected 4"):
            tables.swap([b"\0\1"], b"abc")
        with pytest.raises(MapSizeError, match="a key of 1 bytes, expected 2"):
            tables.swap([b"\1"], b"abcd")
        assert list(tables.keys()) == []

    def test_no_room_is_said(self, tables: Tables) -> None:
        tables.swap([bytes([0, n]) for n in range(8)], b"abcd")
        with pytest.raises(MapFullError, match="room for 8 entries"):
            tables.swap([b"\0\x09"], b"abcd")


# --- places ---------------------------------------------------------------------------------------


@contextmanager
def private_bpffs(folder: Path) -> Iterator[Path]:
    """A BPF file system of the test's own; its pins vanish with it."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "bpf", "bpf", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def cgroup2_root() -> Path:
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    raise RuntimeError("no cgroup2 file system is mounted")


@contextmanager
def child_cgroup(name: str) -> Iterator[Path]:
    """A control group below the root; processes left in it are a failure of the test."""
    folder = cgroup2_root() / name
    folder.mkdir()
    try:
        yield folder
    finally:
        folder.rmdir()


@contextmanager
def netns(name: str) -> Iterator[str]:
    """A network namespace with its loopback up."""
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000


def inside(
    work: Callable[[], Result], *, namespace: str | None = None, cgroup: Path | None = None
) -> Result:
    """Runs `work` in a thread of its own that has moved to the network namespace.

    A control group holds processes: this one is moved, and moved back."""
    outcome: list[Result] = []
    failure: list[BaseException] = []

    def moved() -> None:
        try:
            if namespace is not None:
                enter(namespace)
            outcome.append(work())
        except BaseException as error:  # noqa: BLE001  # handed to the caller below
            failure.append(error)

    with _in_cgroup(cgroup):
        thread = threading.Thread(target=moved)
        thread.start()
        thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def enter(namespace: str) -> None:
    """The calling thread moves to a network namespace; what it starts begins there."""
    fd = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if _libc.setns(fd, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
    finally:
        os.close(fd)


@contextmanager
def _in_cgroup(folder: Path | None) -> Iterator[None]:
    if folder is None:
        yield
        return
    before = own_cgroup()
    (folder / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        (before / "cgroup.procs").write_text(str(os.getpid()))


def own_cgroup() -> Path:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, _, path = line.split(":", 2)
        if number == "0":
            return cgroup2_root() / path.lstrip("/")
    raise RuntimeError("this process is in no cgroup2 group")


# --- model ----------------------------------------------------------------------------------------


def kernel() -> tuple[int, int]:
    """Its version's first two numbers."""
    major, minor, *_ = os.uname().release.split(".")
    return int(major), int(minor)


def seeded(seed: int) -> random.Random:
    return random.Random(seed)


def counted(counters: Mapping[bytes, tuple[int, int]], reason: int, line: int | None = None) -> int:
    """How often a reason was counted, in all directions and places, or at one line."""
    return sum(
        count
        for raw, (count, _) in counters.items()
        if raw[0] == reason and line in (None, int.from_bytes(raw[2:4], "little"))
    )
