"""One kind's copy against a source that errs or lies."""

import pytest

from clustermesh.keys import Kind
from clustermesh.kvstoremesh.copy import Copy, TooMany
from clustermesh.kvstoremesh.places import Route
from kvstore.events import Delete, Event, Put, Synced

ROUTE = Route(Kind.NODES, "cilium/state/nodes/v1/paris/", "cilium/cache/nodes/v1/paris/", "")
SOURCE, TARGET = ROUTE.source, ROUTE.target


class Kept(dict[str, bytes]):
    """The output."""

    def put(self, key: str, value: bytes) -> None:
        self[key] = value

    def remove(self, key: str) -> None:
        self.pop(key, None)


def copying(*events: Event, limit: int = 10) -> tuple[Copy, Kept]:
    kept = Kept()
    copy = Copy(TARGET, kept, limit=limit)
    copy.begin()
    copy.take(ROUTE, events, lambda: None)
    return copy, kept


def test_nothing_leaves_the_prefix_whatever_the_source_says() -> None:
    strangers = ("cilium/state/nodes/v1/paris2/n", "cilium/cluster-config/home", "", SOURCE)
    odd = ("../../home/n", "a//b", "\udcff", ".", "n/" + "x" * 1000)
    copy, kept = copying(
        *(Put(key, b"x", 1) for key in strangers),
        *(Delete(key, 1) for key in strangers),
        *(Put(SOURCE + name, b"x", 1) for name in odd),
    )
    assert set(kept) == {TARGET + name for name in odd}
    assert copy.strangers == 2 * len(strangers)


def test_what_a_full_list_does_not_repeat_goes_when_it_is_complete() -> None:
    copy, kept = copying(Put(SOURCE + "a", b"1", 1), Put(SOURCE + "b", b"1", 1), Synced(1))
    done: list[bool] = []
    copy.begin()
    copy.take(ROUTE, [Put(SOURCE + "a", b"2", 2)], lambda: done.append(True))
    assert (kept, done) == ({TARGET + "a": b"2", TARGET + "b": b"1"}, [])
    copy.take(ROUTE, [Synced(2)], lambda: done.append(True))
    assert (kept, done) == ({TARGET + "a": b"2"}, [True])


def test_adopted_copies_are_swept_too_and_others_are_not_adopted() -> None:
    kept = Kept({TARGET + "old": b"1", "cilium/cache/nodes/v1/paris2/n": b"1"})
    copy = Copy(TARGET, kept, limit=10)
    copy.adopt(list(kept))
    copy.begin()
    copy.take(ROUTE, [Synced(1)], lambda: None)
    assert set(kept) == {"cilium/cache/nodes/v1/paris2/n"}


def test_too_many_keys_stop_the_copy_with_a_sentence() -> None:
    with pytest.raises(TooMany, match="more than 10 keys under cilium/state/nodes/v1/paris/"):
        copying(*(Put(f"{SOURCE}{n}", b"", 1) for n in range(11)))
    copying(*(Put(f"{SOURCE}{n % 10}", b"", 1) for n in range(100)))
