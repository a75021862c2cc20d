"""When services may lead somewhere: once the network has been compared with where."""

from agent.network.netlink import Link
from agent.network.network import Network, Round, only_routes
from agent.network.wanted import Facts, Place


def network() -> Network:
    return Network(
        Place(), attach=lambda _: False, report=lambda _: None, interval=60.0, settle=0.2
    )


def compared(net: Network, facts: Facts) -> None:
    net._compared = facts


FIRST = Facts(destinations=frozenset({"10.2.0.0/24"}))


def test_a_new_destination_is_waited_for():
    net = network()
    assert net.caught_up
    net.want(FIRST)
    assert not net.caught_up
    compared(net, FIRST)
    assert net.caught_up


def test_what_is_no_destination_is_not_waited_for():
    net = network()
    net.want(FIRST)
    compared(net, FIRST)
    net.want(Facts(destinations=FIRST.destinations, sources=frozenset({"10.1.0.7/32"})))
    assert net.caught_up
    net.want(Facts())
    assert net.caught_up


def test_what_is_lacking_is_what_came_since_the_last_comparison():
    net = network()
    assert net.lacking == frozenset()
    net.want(FIRST)
    assert net.lacking == FIRST.destinations
    compared(net, FIRST)
    more = frozenset({"10.3.0.0/24"})
    net.want(Facts(destinations=FIRST.destinations | more))
    assert net.lacking == more


def test_only_other_destinations_need_no_look_at_the_rest():
    last = Round(link=Link(index=7, name="cm_vxlan", port=8472))
    more = Facts(destinations=frozenset({"10.3.0.0/24"}), peers=frozenset({"192.0.2.7"}))
    assert only_routes(Place(), last, FIRST, more)
    assert not only_routes(Place(), Round(), FIRST, more)
    rewritten = Round(link=Link(index=7, name="cm_vxlan", port=8473))
    assert not only_routes(Place(), rewritten, FIRST, more)
    for other in (
        Facts(sources=frozenset({"10.1.0.7/32"})),
        Facts(overlay=("10.1.0.1",)),
        Facts(complete=False),
        Facts(direct=frozenset({"10.2.0.0/24"})),
    ):
        assert not only_routes(Place(), last, FIRST, other)
