"""Steps: none when nothing changes, safe in their order, and only what is needed."""

from msgspec.structs import replace

from agent.services.plan import BackendEntry, Change, Drop, Step, Swap, Write, bury, plan
from agent.services.program import Place, Program
from bpf.layout_lb import BackendValue

PLACE = Place(bytes([10, 96, 0, 1]), 80, 6)
SIX = Place(bytes(15) + b"\1", 80, 6)
OLD = Program(
    id=7, backends=(1, 2, 3), count=3, parked=0, flags=0, timeout=0, shares=b"old", slots=3
)


def steps(*changes: Change, fresh: list[BackendEntry] | None = None) -> list[Step]:
    return list(plan(changes, fresh or []))


def shape(found: list[Step]) -> list[tuple[str, str, int]]:
    return [(type(step).__name__, step.map, len(step.entries)) for step in found]


def test_what_is_as_it_should_be_needs_no_step() -> None:
    assert steps(Change(PLACE, OLD, OLD)) == []


def test_a_new_frontend_is_written_from_the_ground_up() -> None:
    value = BackendValue(bytes([10, 1, 0, 1]), 8080, 6).pack()
    found = steps(Change(PLACE, None, OLD, b"table"), fresh=[BackendEntry(1, value)])
    assert shape(found) == [
        ("Write", "backends4", 1),
        ("Write", "services4", 3),
        ("Write", "reverse_nat4", 1),
        ("Write", "services4", 1),
        ("Swap", "tables4", 1),
    ]


def test_a_frontend_that_goes_is_removed_from_the_top_down() -> None:
    found = steps(Change(PLACE, OLD, None))
    assert shape(found) == [
        ("Drop", "services4", 1),
        ("Drop", "tables4", 1),
        ("Drop", "services4", 3),
        ("Drop", "reverse_nat4", 1),
    ]
    assert found[0].entries == [b"\x0a\x60\x00\x01\x00\x50\x00\x00\x06\x00\x00\x00"]


def test_only_slots_that_differ_are_written_and_the_tail_goes_last() -> None:
    new = replace(OLD, backends=(1, 3), count=2, shares=b"new", slots=2)
    assert shape(steps(Change(PLACE, OLD, new, b"table"))) == [
        ("Write", "services4", 1),  # slot 2 names backend 3 now
        ("Write", "services4", 1),  # the master counts 2
        ("Swap", "tables4", 1),
        ("Drop", "services4", 1),
    ]


def test_without_backends_the_master_says_so_before_the_table_goes() -> None:
    new = replace(OLD, backends=(), count=0, shares=b"", slots=0)
    assert shape(steps(Change(PLACE, OLD, new))) == [
        ("Write", "services4", 1),
        ("Drop", "tables4", 1),
        ("Drop", "services4", 3),
    ]


def test_sticky_clients_leave_first_and_are_let_in_last() -> None:
    sticky = replace(OLD, timeout=60, flags=0x10)
    new = replace(sticky, backends=(1, 2, 4), shares=b"new")
    found = shape(steps(Change(PLACE, sticky, new, b"table")))
    assert found[0] == ("Drop", "affinity_match", 1)
    assert found[-1] == ("Write", "affinity_match", 1)


def test_what_may_be_damaged_is_written_in_full() -> None:
    hurt = replace(OLD, whole=False, slots=5)
    assert shape(steps(Change(PLACE, hurt, OLD, b"table"))) == [
        ("Write", "services4", 3),
        ("Write", "reverse_nat4", 1),
        ("Write", "services4", 1),
        ("Swap", "tables4", 1),
        ("Drop", "services4", 2),
    ]


def test_a_new_number_takes_the_place_of_the_old_one() -> None:
    new = replace(OLD, id=8)
    found = steps(Change(PLACE, OLD, new, b"table"))
    assert Drop("tables4", [b"\0\7"]) in found
    assert Drop("reverse_nat4", [b"\0\7"]) in found
    assert Swap("tables4", [(b"\0\x08", b"table")]) in found


def test_parked_slots_are_marked() -> None:
    parked = replace(OLD, count=2, parked=1)
    (slots, _, *_) = steps(Change(PLACE, OLD, parked, b"table"))
    assert isinstance(slots, Write)
    ((_, value),) = slots.entries
    assert value[8:10] == b"\x00\x40"


def test_families_are_written_to_their_own_maps() -> None:
    found = steps(Change(PLACE, None, OLD, b"t"), Change(SIX, None, OLD, b"t"))
    assert {step.map for step in found} == {
        "services4", "services6", "reverse_nat4", "reverse_nat6", "tables4", "tables6",
    }  # fmt: skip


def test_orphans_are_buried_by_family() -> None:
    four = BackendValue(bytes([10, 1, 0, 1]), 8080, 6).pack()
    six = BackendValue(bytes(16), 8080, 6).pack()
    assert list(bury([BackendEntry(1, four), BackendEntry(2, six)], [])) == [
        Drop("backends4", [b"\1\0\0\0"]),
        Drop("backends6", [b"\2\0\0\0"]),
    ]
