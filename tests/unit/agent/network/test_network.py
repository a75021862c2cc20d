"""When services may lead somewhere: once the network has been compared with where."""

from agent.network.network import Network
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
