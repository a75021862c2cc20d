"""Clusters that leave and come back, perhaps under another id, before anybody saw them leave."""

from msgspec.structs import replace

from clustermesh.keys import Kind
from tests.support.mesh import OWN, REMOTE_KINDS, Agent, node

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
