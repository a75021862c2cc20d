"""What is asked of the network, change by change: the same as if all of it were asked at once."""

from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.network.demand import Change, Demand

FIRST, MORE = "10.2.0.0/24", "10.3.0.0/24"


def demand(*destinations: str) -> Demand:
    """These have been compared, and all the rest."""
    made = Demand()
    for cidr in destinations:
        made.lead(cidr, "192.0.2.2", cluster="b")
    made.here(overlay=("10.1.0.1",), complete=True)
    made.all()
    made.ended()
    return made


def test_a_new_destination_is_waited_for_until_a_comparison_with_it_has_ended():
    asked = demand()
    assert not asked.urgent
    asked.lead(FIRST, "192.0.2.2", cluster="b")
    assert asked.urgent
    assert set(asked.lacking) == {"b"}
    assert asked.change() == Change(wanted=(FIRST,))
    assert not asked.urgent
    asked.lead(MORE, "192.0.2.2", cluster="c")
    assert set(asked.lacking) == {"b", "c"}
    asked.ended()
    assert set(asked.lacking) == {"c"}


def test_nobody_waits_for_what_is_wanted_no_more():
    asked = demand(FIRST)
    asked.lead(MORE, "192.0.2.2", cluster="c")
    asked.leave(MORE)
    asked.leave(FIRST)
    assert not asked.lacking
    assert set(asked.change().gone) == {FIRST, MORE}
    assert not asked.dirty
    asked.lead(MORE, "192.0.2.2", cluster="c")
    asked.change()
    asked.leave(MORE)
    assert not asked.lacking
    asked.ended()
    assert not asked.lacking


def test_what_was_never_asked_for_is_not_dirty_and_nothing_is_lacking():
    asked = Demand()
    asked.lead(FIRST, "192.0.2.2")
    assert not asked.dirty
    assert not asked.urgent
    asked.here(overlay=(), complete=False)
    assert asked.dirty
    assert asked.urgent


CHANGES: dict[str, Callable[[Demand], None]] = {
    "destination": lambda it: it.lead(MORE, "192.0.2.2"),
    "node": lambda it: it.lead(FIRST, "192.0.2.7"),
    "overlay": lambda it: it.here(overlay=("10.1.0.2",), complete=True),
    "complete": lambda it: it.here(overlay=("10.1.0.1",), complete=False),
    "sources": lambda it: it.from_pods(lambda: ["10.1.0.7/32"]),
    "direct": lambda it: it.lead(FIRST, "192.0.2.2", direct=True),
}


@pytest.mark.parametrize(
    ("change", "routes", "whoever_the_nodes_are"),
    [
        ("destination", True, True),
        ("node", False, True),
        ("overlay", False, False),
        ("complete", False, False),
        ("sources", False, False),
        ("direct", False, False),
    ],
)
def test_only_other_destinations_need_no_look_at_the_rest(change, routes, whoever_the_nodes_are):
    asked = demand(FIRST)
    assert not asked.dirty
    CHANGES[change](asked)
    assert asked.dirty
    assert asked.only_routes(peers=False) is routes
    assert asked.only_routes(peers=True) is whoever_the_nodes_are


def test_what_was_withdrawn_is_known_until_it_is_gone():
    asked = demand(FIRST, MORE)
    asked.leave(FIRST)
    asked.change()
    assert asked.all()[1] == {FIRST}
    asked.leave(MORE)
    asked.forget(frozenset({FIRST}))
    assert asked.all()[1] == {MORE}
    asked.lead(MORE, "192.0.2.2")
    assert asked.all()[1] == set()


cidrs = st.sampled_from(["10.2.0.0/24", "10.3.0.0/24", "10.4.0.7/32", "fd00::/64"])
nodes = st.sampled_from(["192.0.2.2", "192.0.2.3", "0.0.0.0", ""])  # noqa: S104
asks = st.one_of(
    st.tuples(cidrs, nodes, st.booleans()), st.tuples(cidrs, st.none(), st.just(value=False))
)


def apply(asked: Demand, changes: Iterable[tuple[str, str | None, bool]]) -> None:
    for cidr, node, direct in changes:
        if node is None:
            asked.leave(cidr)
        else:
            asked.lead(cidr, node, direct=direct)


@given(st.lists(asks), st.lists(asks))
def test_change_by_change_is_the_same_as_all_at_once(first, second):
    asked, present = Demand(), dict[str, tuple[str, bool]]()
    asked.here(overlay=(), complete=True)
    apply(asked, first)
    before = asked.all()[0].destinations
    apply(asked, second)
    for cidr, node, direct in (*first, *second):
        present.pop(cidr, None)
        if node is not None:
            present[cidr] = (node, direct)
    changed = asked.change()
    facts = asked.all()[0]
    assert facts.destinations == present.keys()
    assert facts.gateways == {(cidr, node) for cidr, (node, direct) in present.items()
                              if direct and node}  # fmt: skip
    assert facts.peers == {node for node, _ in present.values()} - {"", "0.0.0.0"}  # noqa: S104
    assert (before | set(changed.wanted)) - set(changed.gone) == facts.destinations
