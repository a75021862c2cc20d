"""Clusters that leave and come back, perhaps under another id, before anybody saw them leave."""

from msgspec.structs import replace

from clustermesh.keys import Kind
from tests.support.mesh import OWN, REMOTE_KINDS, Agent, node, pod

B1 = node("cluster-b", "b1", "192.168.1.1", "10.2.0.0/24")
C1 = node("cluster-c", "c1", "192.168.2.1", "10.2.0.0/24")


def again(agent: Agent, cluster_id: int) -> None:
    """``cluster-b`` begins another life, with the node that it had."""
    agent.dataplane.drain("cluster-b")
    agent.dataplane.identify("cluster-b", cluster_id)
    agent.dataplane.apply("cluster-b", Kind.NODES, [("b1", replace(B1, cluster_id=cluster_id))])


def test_an_id_that_changes_in_no_time_changes_who_is_held_out():
    agent = Agent().expect("cluster-b", "cluster-c").synced(OWN)
    agent.nodes(B1, C1).synced("cluster-b", "cluster-c").settle()
    assert agent.dataplane.routes()["10.2.0.0/24"].cluster == "cluster-b"
    again(agent, 7)
    for kind in REMOTE_KINDS:
        agent.dataplane.synced("cluster-b", kind)
    agent.settle()
    assert agent.dataplane.routes()["10.2.0.0/24"].cluster == "cluster-c"
    assert next(iter(agent.dataplane.trouble())).startswith("cluster cluster-b: its range")


def test_a_node_of_a_life_that_ended_during_its_first_list_leaves_no_route():
    agent = Agent().expect("cluster-b").synced(OWN)
    agent.nodes(B1).synced("cluster-b").settle()
    again(agent, 5)
    agent.dataplane.work(lambda: 0.0, 0)
    agent.dataplane.apply("cluster-b", Kind.NODES, [("b1", None)])
    agent.dataplane.drain("cluster-b")
    agent.settle()
    assert agent.dataplane.routes() == {}


def test_an_address_of_a_cluster_that_is_held_out_leads_to_the_other_that_names_it():
    agent = Agent().expect("cluster-b", "cluster-c").synced(OWN)
    agent.nodes(B1, node("cluster-c", "c1", "192.168.2.1", "10.3.0.0/24"))
    for cluster, host, number in (("cluster-b", "192.168.1.1", 2), ("cluster-c", "192.168.2.1", 3)):
        agent.pods(cluster, pod("10.9.0.9", host, number << 16 | 9)).synced(cluster)
    for cidr, leads_to in (("", "192.168.1.1"), ("10.2.0.0/24", "192.168.2.1")) * 2:
        agent.nodes(node(OWN, "a1", "192.168.0.1", cidr)).settle()
        assert agent.dataplane.routes()["10.9.0.9/32"].node_ip == leads_to
