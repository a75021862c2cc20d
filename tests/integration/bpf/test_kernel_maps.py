"""Maps in the kernel keep the promises of the map contract, in batches and one by one."""

import os

import pytest

from bpf import syscalls
from bpf.errors import MapCallError
from bpf.kernel_maps import KernelCounters, KernelMap, KernelTables, possible_cpus
from bpf.maps import MapKind
from bpf.specs import NO_PREALLOC
from tests.support.bpf import MakeMap, MapContract, TablesContract, key, value

pytestmark = pytest.mark.root


@pytest.fixture
def made():
    """Closes what a test makes."""
    handles: list[KernelMap | KernelTables | KernelCounters] = []
    yield handles
    for handle in handles:
        handle.close()


def make_kernel_map(made, *, batches: bool) -> MakeMap:
    def make(
        *,
        key_size: int = 4,
        value_size: int = 8,
        max_entries: int = 8,
        kind: MapKind = MapKind.HASH,
    ) -> KernelMap:
        flags = NO_PREALLOC if kind in (MapKind.HASH, MapKind.LPM_TRIE) else 0
        fd = syscalls.map_create(kind, key_size, value_size, max_entries, flags, "cm_test")
        made.append(KernelMap(fd, "test", batches=batches))
        return made[-1]

    return make


class TestKernelMapInBatches(MapContract):
    @pytest.fixture
    def make(self, made) -> MakeMap:
        return make_kernel_map(made, batches=True)


class TestKernelMapOneByOne(MapContract):
    @pytest.fixture
    def make(self, made) -> MakeMap:
        return make_kernel_map(made, batches=False)


class TestKernelTables(TablesContract):
    @pytest.fixture
    def tables(self, made) -> KernelTables:
        inner = syscalls.map_create(MapKind.ARRAY, 4, 4, 1)
        fd = syscalls.map_create(
            MapKind.HASH_OF_MAPS, 2, 4, 8, NO_PREALLOC, "cm_test", inner_fd=inner
        )
        os.close(inner)
        made.append(KernelTables(fd, "test", table_size=4))
        return made[-1]


def test_counters_of_all_cpus_are_added_up(made):
    fd = syscalls.map_create(MapKind.PERCPU_HASH, 8, 16, 8, NO_PREALLOC, "cm_test")
    made.append(KernelCounters(fd, "test"))
    parts = b"".join(
        bytes([n + 1]) + bytes(7) + bytes([10]) + bytes(7) for n in range(possible_cpus())
    )
    wanted = sum(range(1, possible_cpus() + 1)), 10 * possible_cpus()
    at, what = syscalls.address_of(b"12345678"), syscalls.address_of(parts)
    syscalls.element(syscalls.MAP_UPDATE, fd, at, what)
    assert made[0].read() == {b"12345678": wanted}


def test_a_tool_that_only_reads_cannot_write(datapath, root):
    datapath.maps.nodes.put_many([(bytes(4), bytes(16))])
    reader = KernelMap.pinned(root / "maps" / "cm_nodes", read_only=True)
    try:
        assert list(reader.items()) == [(bytes(4), bytes(16))]
        with pytest.raises(MapCallError, match="cm_nodes: writing failed: Operation not permitted"):
            reader.put_many([(bytes(4), bytes(16))])
    finally:
        reader.close()


def test_a_bad_entry_in_a_batch_is_told_and_batches_go_on(made):
    make = make_kernel_map(made, batches=True)
    trie = make(key_size=8, kind=MapKind.LPM_TRIE, max_entries=100)
    good, bad = b"\x20\0\0\0\x0a\0\0\1", b"\x21\0\0\0\x0a\0\0\1"
    with pytest.raises(MapCallError, match="Invalid argument"):
        trie.put_many([(good, value(1)), (bad, value(2))])
    assert trie.get(good) == value(1)
    plain = make()
    plain.put_many([(key(1), value(1)), (key(2), value(2))])
    assert len(dict(plain.items())) == 2
