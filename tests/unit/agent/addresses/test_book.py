"""Claims on the keys of one map: the best wins whatever came first; writes are what is needed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.addresses.book import Book, claimant
from bpf.errors import MapCallError
from bpf.maps import DictMap
from tests.support.bpf import FaultyMap

OWN = 5
KEY, OTHER = b"k001", b"k002"


def value(text: str) -> bytes:
    return text.encode().ljust(4, b".")


def a_map(room: int = 16) -> DictMap:
    return DictMap("m", key_size=4, value_size=4, max_entries=room)


def who(cluster_id: int, rank: int = 1) -> int:
    return claimant(cluster_id, rank=rank)


def let_go(book: Book) -> list[bytes]:
    gone = []
    while book.leaving:
        gone += book.let_go()
    return gone


def flush(book: Book) -> None:
    while book.turning:
        book.turn_some()
    while book.pending.puts or book.pending.drops:
        book.pending.write(100)
        book.pending.remove(100)


def held_by(target: DictMap) -> dict[bytes, bytes]:
    return dict(target.items())


def test_a_claim_is_written_and_a_release_removes_it() -> None:
    target = a_map()
    book = Book(target, OWN, batch=1)
    assert book.claim(KEY, who(2), value("b"))
    flush(book)
    assert held_by(target) == {KEY: value("b")}
    assert book.release(KEY, who(2))
    flush(book)
    assert held_by(target) == {}
    assert (book.pending.puts, book.pending.drops, len(book)) == (0, 0, 0)


def test_repeating_a_claim_writes_nothing() -> None:
    target = a_map()
    book = Book(target, OWN, batch=1)
    book.claim(KEY, who(2), value("b"))
    flush(book)
    assert not book.claim(KEY, who(2), value("b"))
    assert (book.pending.puts, target.writes) == (0, 1)


def test_a_change_that_is_taken_back_before_it_was_written_writes_nothing() -> None:
    target = a_map()
    book = Book(target, OWN, batch=1)
    book.claim(KEY, who(2), value("b"))
    flush(book)
    book.claim(KEY, who(2), value("x"))
    book.claim(KEY, who(2), value("b"))
    book.claim(OTHER, who(2), value("y"))
    book.release(OTHER, who(2))
    flush(book)
    assert target.writes == 1


PRECEDENCE = [who(OWN, 0), who(OWN, 1), who(2, 0), who(2, 1), who(3, 0), who(9, 1)]


@given(st.permutations(PRECEDENCE), st.permutations(PRECEDENCE))
def test_the_best_claim_wins_in_any_order_of_coming_and_going(
    coming: list[int], going: list[int]
) -> None:
    book = Book(a_map(), OWN, batch=1)
    present: set[int] = set()

    def best() -> bytes | None:
        return next((value(str(w)) for w in PRECEDENCE if w in present), None)

    for claim in coming:
        book.claim(KEY, claim, value(str(claim)))
        present.add(claim)
        assert book.wanted(KEY) == best()
    for claim in going:
        book.release(KEY, claim)
        present.discard(claim)
        assert book.wanted(KEY) == best()
    assert len(book) == 0


@given(st.sets(st.integers(1, 9)), st.sets(st.integers(1, 9)))
def test_held_clusters_are_left_out_of_account(claimed: set[int], held: set[int]) -> None:
    target = a_map()
    book = Book(target, OWN, batch=1)
    for cluster_id in sorted(claimed):
        book.claim(KEY, who(cluster_id), value(str(cluster_id)))
    flush(book)
    book.hold(held)
    flush(book)
    free = sorted(claimed - held, key=lambda c: (c != OWN, c))
    assert held_by(target) == ({KEY: value(str(free[0]))} if free else {})
    book.hold(frozenset())
    flush(book)
    free = sorted(claimed, key=lambda c: (c != OWN, c))
    assert held_by(target) == ({KEY: value(str(free[0]))} if free else {})


CLUSTERS = st.integers(1, 4)
KEYS = st.sampled_from([b"k001", b"k002", b"k003", b"k004"])
STEPS = st.one_of(
    st.tuples(st.just("claim"), KEYS, CLUSTERS),
    st.tuples(st.just("release"), KEYS, CLUSTERS),
    st.tuples(st.just("hold"), st.frozensets(CLUSTERS), st.none()),
    st.tuples(st.just("turn"), st.none(), st.none()),
    st.tuples(st.just("write"), st.none(), st.none()),
)


@given(st.lists(STEPS, max_size=40))
def test_what_is_held_bit_by_bit_is_as_if_it_were_held_at_once(steps: list[tuple]) -> None:
    target, held = a_map(), frozenset[int]()
    book = Book(target, OWN, batch=1)
    claims: dict[bytes, set[int]] = {}
    for step, what, cluster in steps:
        if step == "claim":
            book.claim(what, who(cluster), value(str(cluster)))
            claims.setdefault(what, set()).add(cluster)
        elif step == "release":
            book.release(what, who(cluster))
            claims.get(what, set()).discard(cluster)
        elif step == "hold":
            held = what
            book.hold(held)
        elif step == "turn":
            book.turn_some()
        else:
            book.pending.write(2)
            book.pending.remove(1)
    flush(book)
    free = {key: sorted(them - held) for key, them in claims.items()}
    assert held_by(target) == {key: value(str(them[0])) for key, them in free.items() if them}


def test_a_full_list_sweeps_what_it_does_not_repeat() -> None:
    target = a_map()
    book = Book(target, OWN, batch=1)
    for key in (KEY, OTHER):
        book.claim(key, who(2), value("b"))
    book.claim(KEY, who(3), value("c"))
    flush(book)
    book.doubt(who(2))
    book.claim(OTHER, who(2), value("b"))
    book.confirm(who(2))
    assert let_go(book) == [KEY]
    flush(book)
    assert held_by(target) == {KEY: value("c"), OTHER: value("b")}
    assert book.count(who(2)) == 1
    book.confirm(who(2))
    assert not book.leaving


def test_two_outages_in_a_row_still_sweep() -> None:
    book = Book(a_map(), OWN, batch=1)
    book.claim(KEY, who(2), value("b"))
    book.claim(OTHER, who(2), value("b"))
    book.doubt(who(2))
    book.claim(KEY, who(2), value("b"))
    book.doubt(who(2))
    book.claim(OTHER, who(2), value("b"))
    book.confirm(who(2))
    assert let_go(book) == [KEY]


def test_what_is_told_again_while_others_are_let_go_stays() -> None:
    target = a_map()
    book = Book(target, OWN, batch=1)
    for key in (KEY, OTHER):
        book.claim(key, who(2), value("b"))
    book.doubt(who(2))
    book.confirm(who(2))
    assert book.let_go() == [KEY]
    book.claim(OTHER, who(2), value("b"))
    assert let_go(book) == []
    flush(book)
    assert held_by(target) == {OTHER: value("b")}


def test_a_second_outage_first_ends_what_the_first_began() -> None:
    book = Book(a_map(), OWN, batch=1)
    for key in (KEY, OTHER):
        book.claim(key, who(2), value("b"))
    book.doubt(who(2))
    book.confirm(who(2))
    book.claim(OTHER, who(2), value("b"))
    book.doubt(who(2))
    assert [book.wanted(KEY), book.wanted(OTHER)] == [None, value("b")]
    assert let_go(book) == [KEY]


def test_a_cluster_that_comes_back_while_it_leaves_keeps_what_it_says_now() -> None:
    target = a_map()
    book = Book(target, OWN, batch=1)
    for key in (KEY, OTHER):
        book.claim(key, who(2), value("b"))
    flush(book)
    book.drain(2)
    book.claim(OTHER, who(2), value("x"))
    assert let_go(book) == [KEY, OTHER]
    flush(book)
    assert held_by(target) == {OTHER: value("x")}


def test_entries_of_an_earlier_run_are_recognised_whoever_claims_them() -> None:
    target = a_map()
    target.put_many([(KEY, value("b")), (OTHER, value("c"))])
    before = target.writes
    book = Book(target, OWN, batch=1)
    book.pending.adopt(lambda key, _: 2 if key == KEY else 3)
    book.claim(KEY, who(2), value("b"))
    book.claim(OTHER, who(7), value("c"))
    book.pending.prune(3)
    flush(book)
    assert target.writes == before
    assert held_by(target) == {KEY: value("b"), OTHER: value("c")}


def test_only_what_nobody_claimed_is_pruned() -> None:
    target = a_map()
    target.put_many([(KEY, value("b")), (OTHER, value("c"))])
    book = Book(target, OWN, batch=1)
    book.pending.adopt(lambda *_: 2)
    assert set(book.pending.found()) == {2}
    book.claim(KEY, who(2), value("x"))
    book.pending.prune(2)
    flush(book)
    assert held_by(target) == {KEY: value("x")}
    assert set(book.pending.found()) == set()


def test_draining_takes_claims_and_leftovers() -> None:
    target = a_map()
    target.put_many([(b"old1", value("b"))])
    book = Book(target, OWN, batch=1)
    book.pending.adopt(lambda *_: 2)
    book.claim(KEY, who(2), value("b"))
    book.claim(OTHER, who(3), value("c"))
    flush(book)
    book.drain(2)
    assert let_go(book) == [KEY]
    flush(book)
    assert held_by(target) == {OTHER: value("c")}


def test_a_full_map_keeps_what_fits_takes_changes_and_the_rest_when_there_is_room() -> None:
    target = a_map(room=2)
    book = Book(target, OWN, batch=1)
    for n in range(4):
        book.claim(b"k%03d" % n, who(2), value("b"))
    book.pending.write(100)
    assert (len(held_by(target)), book.pending.refused) == (2, 2)
    book.claim(b"k000", who(2), value("x"))
    book.pending.write(100)
    assert held_by(target)[b"k000"] == value("x")
    book.release(b"k003", who(2))
    assert book.pending.refused == 1
    book.release(b"k001", who(2))
    flush(book)
    assert held_by(target) == {b"k000": value("x"), b"k002": value("b")}
    assert book.pending.refused == 0


def test_after_a_failed_write_nothing_is_taken_for_granted() -> None:
    inner = a_map()
    target = FaultyMap(inner)
    book = Book(target, OWN, batch=1)
    book.claim(KEY, who(2), value("a"))
    flush(book)
    book.claim(KEY, who(2), value("b"))
    target.refuse(MapCallError("m", "writing", OSError(1, "no")))
    with pytest.raises(MapCallError):
        book.pending.write(100)
    inner.put_many([(KEY, value("b"))])  # it may have come that far
    book.claim(KEY, who(2), value("a"))
    flush(book)
    assert held_by(inner) == {KEY: value("a")}
