"""Refusals are remembered in bounds and told once."""

from clustermesh.apiserver.refusals import Refusals


def test_the_list_is_bounded_and_the_count_is_not() -> None:
    refusals = Refusals(limit=2, now=lambda: 5.0)
    for name in ("a", "b", "c"):
        refusals.tell(name, "no")
    assert [one.what for one in refusals.listed()] == ["b", "c"]
    assert len(refusals) == 3
    refusals.tell("a", None)
    refusals.tell("c", None)
    refusals.tell("never", None)
    assert [one.what for one in refusals.listed()] == ["b"]
    assert len(refusals) == 1


def test_since_is_when_it_was_first_refused() -> None:
    times = iter((1.0, 2.0))
    refusals = Refusals(now=lambda: next(times))
    refusals.tell("a", "one reason")
    refusals.tell("a", "one reason")
    refusals.tell("a", "another")
    (only,) = refusals.listed()
    assert (only.reason, only.since) == ("another", 1.0)
