"""The board knows what is well, since when, and whether the process is ready."""

from clustermesh.health import Board, Condition


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_ready_only_while_everything_required_is_well() -> None:
    board = Board()
    assert board.ready
    board.require("etcd")
    assert not board.ready
    assert board.trouble() == ("etcd: not ready yet",)
    board.ok("etcd")
    assert board.ready
    board.degraded("etcd", "does not answer")
    assert not board.ready


def test_what_must_be_well_once_does_not_take_readiness_away_again() -> None:
    board = Board()
    board.require_once("source")
    board.degraded("source", "not read yet")
    assert not board.ready
    board.ok("source")
    board.degraded("source", "the API server is gone")
    assert board.ready
    assert board.trouble() == ("source: the API server is gone",)


def test_a_stranger_in_trouble_does_not_touch_readiness() -> None:
    board = Board()
    report = board.reporter("remote/paris")
    report("no answer")
    assert board.ready
    assert board.trouble() == ("remote/paris: no answer",)
    report(None)
    assert board.trouble() == ()
    report("no answer")
    board.drop("remote/paris")
    assert board.snapshot() == ()


def test_since_is_when_it_became_so_not_when_it_was_last_said() -> None:
    clock = Clock()
    board = Board(now=clock)
    board.degraded("etcd", "first")
    clock.now = 200.0
    board.degraded("etcd", "second")
    (condition,) = board.snapshot()
    assert (condition.reason, condition.since) == ("second", 100.0)
    board.ok("etcd")
    assert board.snapshot()[0].since == 200.0


def test_turns_are_told_and_new_words_for_the_same_are_not() -> None:
    told: list[Condition] = []
    board = Board(told=told.append)
    board.require("etcd")
    assert told == []
    board.degraded("etcd", "connecting again in 1 s")
    board.degraded("etcd", "connecting again in 2 s")
    board.ok("etcd")
    board.ok("etcd")
    board.degraded("etcd", "connecting again in 1 s")
    assert [(one.ok, one.reason) for one in told] == [
        (False, "connecting again in 1 s"),
        (True, ""),
        (False, "connecting again in 1 s"),
    ]
