"""The oracle itself: it must see each broken promise, or it proves nothing."""

import pytest

from kvstore.client import Batch
from kvstore.events import Delete, Put
from tests.support.promises import History, Listing, Recording, Watching, broken_promises

A1, A2, B2, A4 = Put("a", b"1", 1), Put("a", b"2", 2), Put("b", b"2", 2), Delete("a", 4)
TRUTH = History([A1, A2, B2, A4], until=5)


def judged(*, listings: list[Listing] | None = None, watches: list[Watching] | None = None):
    record = Recording(None)
    record.listings = listings or []
    record.watches = watches or []
    return [text.partition(":")[0] for text in broken_promises(record, [TRUTH])]


def watch(after: int, *batches: Batch) -> list[Watching]:
    return [Watching("", after, list(batches))]


def test_the_truth_breaks_no_promise() -> None:
    whole = watch(0, Batch([A1], 1), Batch([], 1), Batch([A2, B2, A4], 4), Batch([], 5))
    assert judged(watches=whole) == []
    assert judged(watches=watch(1, Batch([A2, B2], 2))) == []
    assert judged(listings=[Listing("", 2, {"a": b"2", "b": b"2"})]) == []
    assert judged(listings=[Listing("b", 5, {"b": b"2"})]) == []


@pytest.mark.parametrize(
    ("promise", "told"),
    [
        ("ordered", watch(0, Batch([A2, B2], 2), Batch([A1], 4))),
        ("unique", watch(0, Batch([A1], 1), Batch([A1], 1))),
        ("atomic", watch(0, Batch([A1], 1), Batch([A2], 2), Batch([B2], 2))),
        ("reliable", watch(0, Batch([A1], 1), Batch([A4], 4))),
        ("resumable", watch(1, Batch([A1], 1))),
        ("bookmarkable", watch(0, Batch([], 1), Batch([A1], 1))),
        ("reliable", watch(0, Batch([Put("c", b"", 1)], 1))),
    ],
)
def test_a_broken_promise_is_named(promise: str, told: list[Watching]) -> None:
    assert promise in judged(watches=told)


def test_a_wrong_list_is_seen() -> None:
    assert judged(listings=[Listing("", 4, {"a": b"2", "b": b"2"})]) == ["true"]
