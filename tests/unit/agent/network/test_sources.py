"""Which addresses are those of this node's pods."""

from agent.facts import Me
from agent.network.sources import LocalPods
from clustermesh.keys import Kind
from clustermesh.model import IPEntry
from tests.support.agent_sink import RecordingSink

ME = Me("home", 1, "node-a", "192.0.2.1")


def entry(ip: str, host: str) -> tuple[str, IPEntry]:
    return ip, IPEntry(ip=ip, host_ip=host, id=65545)


def test_only_pods_of_this_node_count_and_everything_is_handed_on() -> None:
    told: list[int] = []
    sink = RecordingSink()
    pods = LocalPods(sink, ME, changed=lambda: told.append(1))
    pods.apply("home", Kind.IPS, [entry("10.0.0.1", "192.0.2.1"), entry("10.0.0.2", "192.0.2.9")])
    assert pods.cidrs == {"10.0.0.1/32"}
    assert sink.names("home", Kind.IPS) == {"10.0.0.1", "10.0.0.2"}
    assert len(told) == 1
    pods.apply("home", Kind.IPS, [entry("10.0.0.1", "192.0.2.1"), entry("10.0.0.3", "192.0.2.9")])
    assert len(told) == 1
    pods.apply("home", Kind.IPS, [entry("10.0.0.1", "192.0.2.9")])
    assert pods.cidrs == frozenset()
    assert len(told) == 2


def test_what_a_full_list_does_not_repeat_is_gone() -> None:
    pods = LocalPods(RecordingSink(), ME, changed=lambda: None)
    pods.apply("home", Kind.IPS, [entry("10.0.0.1", "192.0.2.1"), entry("10.0.0.2", "192.0.2.1")])
    pods.unconfirmed("home")
    pods.apply("home", Kind.IPS, [entry("10.0.0.2", "192.0.2.1")])
    assert pods.cidrs == {"10.0.0.1/32", "10.0.0.2/32"}
    pods.synced("home", Kind.IPS)
    assert pods.cidrs == {"10.0.0.2/32"}
