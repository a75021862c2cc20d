"""Numbers of identities: from labels, recorded before use, never given twice."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustermesh.identities import Allocator, Assignment, FileRecord, RecordError
from clustermesh.identities.allocator import preferred

RANGE = range(1000, 1010)
label_texts = st.lists(st.text(max_size=4), unique=True, max_size=10)


@given(label_texts)
def test_every_label_set_has_a_number_of_its_own_and_keeps_it(texts: list[str]) -> None:
    allocator = Allocator(RANGE)
    given_ = [allocator.number(text) for text in texts]
    assert len(set(given_)) == len(texts)
    assert set(given_) <= set(RANGE)
    assert [allocator.number(text) for text in texts] == given_
    assert [(each.labels, each.id) for each in allocator.fresh()] == list(
        zip(texts, given_, strict=True)
    )
    assert allocator.fresh() == []


@given(label_texts)
def test_a_lost_record_is_reproduced_by_the_same_labels_in_the_same_order(
    texts: list[str],
) -> None:
    one, two = Allocator(RANGE), Allocator(RANGE)
    assert [one.number(text) for text in texts] == [two.number(text) for text in texts]


@given(label_texts, st.data())
def test_a_restart_with_the_record_gives_the_same_numbers_in_any_order(
    texts: list[str], data: st.DataObject
) -> None:
    before = Allocator(RANGE)
    numbers = {text: before.number(text) for text in texts}
    after = Allocator(RANGE)
    after.restore(before.assignments())
    for text in data.draw(st.permutations(texts)):
        assert after.number(text) == numbers[text]
    assert after.fresh() == []


def test_a_number_is_where_its_hash_says_or_the_next_free_one() -> None:
    first = preferred("a", RANGE)
    taken = Allocator(RANGE)
    taken.restore([Assignment(first, "other")])
    assert Allocator(RANGE).number("a") == first
    assert taken.number("a") == RANGE[(RANGE.index(first) + 1) % len(RANGE)]


def test_a_full_range_gives_away_only_what_nothing_refers_to() -> None:
    used = set(RANGE)
    allocator = Allocator(RANGE, in_use=used.__contains__)
    for number in RANGE:
        assert allocator.number(f"old-{number}") is not None
    allocator.fresh()
    assert allocator.number("new") is None
    freed = allocator.number("old-1003")
    assert freed is not None
    used.discard(freed)
    assert allocator.number("new") == freed
    assert allocator.number("old-1003") is None
    again = Allocator(RANGE)
    again.restore([*allocator.assignments()])
    assert again.number("new") == freed


def test_a_number_given_a_moment_ago_is_not_given_away_before_it_is_used() -> None:
    allocator = Allocator(range(5, 6))
    assert allocator.number("a") == 5
    assert allocator.number("b") is None


def test_numbers_of_another_range_in_a_record_are_passed_over() -> None:
    allocator = Allocator(RANGE)
    allocator.restore([Assignment(5, "a")])
    assert allocator.number("a") in RANGE


def test_a_record_is_read_back_in_order(tmp_path: Path) -> None:
    record = FileRecord(tmp_path / "state" / "identities.jsonl")
    assert record.load() == ([], [])
    record.append([])
    record.append([Assignment(1, "a=;"), Assignment(2, 'b="é\n";')])
    record.append([Assignment(1, "c")])
    assert record.load() == (
        [Assignment(1, "a=;"), Assignment(2, 'b="é\n";'), Assignment(1, "c")],
        [],
    )


def test_a_line_cut_short_by_a_crash_is_dropped_and_the_next_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "identities.jsonl"
    record = FileRecord(path)
    record.append([Assignment(1, "a"), Assignment(2, "b")])
    os.truncate(path, path.stat().st_size - 4)
    assert record.load() == ([Assignment(1, "a")], [f"{path} line 2: cut short, dropped"])
    record.append([Assignment(3, "c")])
    assert record.load() == ([Assignment(1, "a"), Assignment(3, "c")], [])


def test_a_damaged_line_costs_that_line_only(tmp_path: Path) -> None:
    path = tmp_path / "identities.jsonl"
    path.write_bytes(b'{"id":1,"labels":"a"}\n{"id":"2"}\n{"id":3,"labels":"c"}\n')
    found, complaints = FileRecord(path).load()
    assert found == [Assignment(1, "a"), Assignment(3, "c")]
    assert len(complaints) == 1
    assert complaints[0].startswith(f"{path} line 2: Expected `int`")


def test_a_record_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    record = FileRecord(tmp_path / "file" / "identities.jsonl")
    with pytest.raises(RecordError, match=r"cannot write .*: (Not a directory|File exists)"):
        record.append([Assignment(1, "a")])
    with pytest.raises(RecordError, match="cannot read"):
        record.load()
