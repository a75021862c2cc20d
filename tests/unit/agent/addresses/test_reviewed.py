"""Addresses in corners: reserved overlay addresses, nodes that lead nowhere, many broken lists."""

from clustermesh.keys import Kind
from tests.support import lb
from tests.support.mesh import OWN, Agent, node, pod, writes

IDENTITY = 2 << 16 | 9


def routes(agent: Agent) -> dict[str, str]:
    return {cidr: route.node_ip for cidr, route in agent.dataplane.routes().items()}


def test_an_overlay_address_outside_of_every_range_has_a_route_of_its_own():
    agent = Agent().expect("cluster-b").synced(OWN)
    agent.nodes(node("cluster-b", "b1", "192.168.1.1", "", "100.64.9.9"))
    agent.pods("cluster-b", pod("10.2.0.5", "192.168.1.1", IDENTITY)).synced("cluster-b").settle()
    assert routes(agent) == {"100.64.9.9/32": "192.168.1.1", "10.2.0.5/32": "192.168.1.1"}


def test_an_overlay_address_inside_its_nodes_range_needs_none():
    agent = Agent().expect("cluster-b").synced(OWN)
    agent.nodes(node("cluster-b", "b1", "192.168.1.1", "10.2.0.0/24", "10.2.0.1"))
    agent.synced("cluster-b").settle()
    assert routes(agent) == {"10.2.0.0/24": "192.168.1.1"}


def test_a_node_without_an_underlay_address_gets_no_route():
    agent = Agent().expect("cluster-b").synced(OWN)
    agent.nodes(node("cluster-b", "b1", "", "10.2.0.0/24", "10.2.0.1"))
    agent.nodes(node("cluster-b", "b2", "192.168.1.2", "10.2.1.0/24", "10.2.1.1"))
    agent.synced("cluster-b").settle()
    assert routes(agent) == {"10.2.1.0/24": "192.168.1.2"}


def test_a_vanished_address_goes_however_many_lists_broke_off_before():
    agent = Agent().expect("cluster-b").synced(OWN)
    agent.nodes(node("cluster-b", "b1", "192.168.1.1", "10.2.0.0/24"))
    agent.pods("cluster-b", pod("10.2.0.5", "192.168.1.1", IDENTITY)).synced("cluster-b").settle()
    for _ in range(256):
        agent.dataplane.unconfirmed("cluster-b")
    agent.synced("cluster-b", kinds=[Kind.NODES, Kind.IPS]).settle()
    assert lb.identity(agent.maps, "10.2.0.5") is None


def test_a_restart_writes_nothing_of_a_cluster_that_is_held_out():
    maps, at = Agent().maps, ("a1", "192.168.0.2", "10.2.0.0/24", "10.1.0.1")
    written = []
    for _ in range(2):
        agent = Agent(maps).expect("cluster-b").nodes(node("cluster-b", *at), node(OWN, *at))
        agent.synced(OWN, "cluster-b").settle()
        written.append(writes(maps))
        assert next(iter(agent.dataplane.trouble())).startswith("cluster cluster-b: its range")
    assert written[0] == written[1]
