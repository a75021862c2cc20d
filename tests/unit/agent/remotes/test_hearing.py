"""What the agent itself hears of the own cluster."""

from agent.facts import LocalKind, Me
from agent.remotes.hearing import Hearing
from clustermesh.keys import Kind
from clustermesh.local import LocalService
from clustermesh.model import IPEntry
from tests.support.agent_sink import RecordingSink

ME = Me("home", 1, "node-a", "192.0.2.1")


def entry(ip: str, host: str) -> tuple[str, IPEntry]:
    return ip, IPEntry(ip=ip, host_ip=host, id=65545)


def test_only_pods_of_this_node_count_and_everything_is_handed_on() -> None:
    told: list[int] = []
    sink = RecordingSink()
    heard = Hearing(sink, ME, changed=lambda: told.append(1))
    heard.apply("home", Kind.IPS, [entry("10.0.0.1", "192.0.2.1"), entry("10.0.0.2", "192.0.2.9")])
    assert heard.pods == {"10.0.0.1/32"}
    assert sink.names("home", Kind.IPS) == {"10.0.0.1", "10.0.0.2"}
    assert len(told) == 1
    heard.apply("home", Kind.IPS, [entry("10.0.0.1", "192.0.2.1"), entry("10.0.0.3", "192.0.2.9")])
    assert len(told) == 1
    heard.apply("home", Kind.IPS, [entry("10.0.0.1", "192.0.2.9"), ("10.0.0.3", None)])
    assert heard.pods == frozenset()
    assert len(told) == 2


def test_what_a_full_list_does_not_repeat_is_gone() -> None:
    heard = Hearing(RecordingSink(), ME, changed=lambda: None)
    heard.apply("home", Kind.IPS, [entry("10.0.0.1", "192.0.2.1"), entry("10.0.0.2", "192.0.2.1")])
    heard.unconfirmed("home")
    heard.apply("home", Kind.IPS, [entry("10.0.0.2", "192.0.2.1")])
    assert heard.pods == {"10.0.0.1/32", "10.0.0.2/32"}
    heard.synced("home", Kind.IPS)
    assert heard.pods == {"10.0.0.2/32"}


def test_global_services_are_counted() -> None:
    heard = Hearing(RecordingSink(), ME, changed=lambda: None)
    cart = LocalService(namespace="shop", name="cart", is_global=True)
    till = LocalService(namespace="shop", name="till")
    heard.apply("home", LocalKind.SERVICES, [("shop/cart", cart), ("shop/till", till)])
    assert heard.global_services == 1
    heard.apply("home", LocalKind.SERVICES, [("shop/cart", till)])
    assert heard.global_services == 0
