"""Maps in memory keep the same promises as those in the kernel, which run the same tests."""

import pytest

from bpf.errors import MapCallError, MapFullError
from bpf.layout import MetricsKey
from bpf.maps import DictCounters, DictMap, DictTables, MapKind, prefix_matches
from tests.support.bpf import FaultyMap, MakeMap, MapContract, TablesContract, key, value


def make_dict(
    *,
    key_size: int = 4,
    value_size: int = 8,
    max_entries: int = 8,
    kind: MapKind = MapKind.HASH,
) -> DictMap:
    return DictMap(
        "test", key_size=key_size, value_size=value_size, max_entries=max_entries, kind=kind
    )


class TestDictMap(MapContract):
    @pytest.fixture
    def make(self) -> MakeMap:
        return make_dict


class TestFaultyMapWithoutFaults(MapContract):
    @pytest.fixture
    def make(self) -> MakeMap:
        def make_faulty(
            *,
            key_size: int = 4,
            value_size: int = 8,
            max_entries: int = 8,
            kind: MapKind = MapKind.HASH,
        ) -> FaultyMap:
            return FaultyMap(
                make_dict(
                    key_size=key_size, value_size=value_size, max_entries=max_entries, kind=kind
                )
            )

        return make_faulty


class TestDictTables(TablesContract):
    @pytest.fixture
    def tables(self) -> DictTables:
        return DictTables("test", table_size=4, max_entries=8)


def test_writes_are_counted_as_the_kernel_would_do_them():
    a_map = make_dict()
    a_map.put_many([(key(1), value(1)), (key(2), value(2))])
    a_map.drop_many([key(1), key(7)])
    assert a_map.writes == 3
    tables = DictTables("test", table_size=4, max_entries=8)
    tables.swap([b"\0\1", b"\0\2"], b"abcd")
    tables.drop([b"\0\1", b"\0\7"])
    assert tables.writes == 3


def test_a_fault_is_told_once_and_leaves_the_map_alone():
    faulty = FaultyMap(make_dict())
    faulty.refuse(
        MapFullError("test", 8), MapCallError("test", "writing", OSError(12, "no memory"))
    )
    with pytest.raises(MapFullError):
        faulty.put_many([(key(1), value(1))])
    with pytest.raises(MapCallError, match="map test: writing failed: no memory"):
        faulty.drop_many([key(1)])
    faulty.put_many([(key(1), value(1))])
    assert faulty.get(key(1)) == value(1)


@pytest.mark.parametrize(
    ("bits", "address", "covered"),
    [
        (0, "00000000", True),
        (8, "0a000000", True),
        (9, "0a000000", True),
        (9, "0a800000", False),
        (32, "0a010203", True),
        (32, "0a010204", False),
    ],
)
def test_a_prefix_covers_an_address_bit_by_bit(bits, address, covered):
    entry = bits.to_bytes(4, "little") + bytes.fromhex(address)
    wanted = (32).to_bytes(4, "little") + bytes.fromhex("0a010203")
    assert prefix_matches(entry, wanted) is covered


def test_counters_in_memory_read_back():
    counters = {MetricsKey(160, 2, 1, 3).pack(): (2, 120)}
    assert DictCounters(counters).read() == counters
