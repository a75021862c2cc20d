"""Routes that must lead to other clusters, worked out in two ways; planted errors are found."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.audit.addresses import Here
from agent.audit.reading import Told
from agent.audit.ways import LOOKED_UP, RULES, TUNNEL, differences, ways
from agent.facts import Me
from agent.network.asked import Asking
from agent.network.demand import Demand
from clustermesh.audit import EXTRA, MISSING, WRONG
from clustermesh.model import IPEntry, Node, NodeAddress
from tests.support.mesh import IDS, NODE, NODE_IP, OWN, OWN_ID, Agent, node, pod

HERE = Here(OWN, OWN_ID, NODE, NODE_IP)
ME = Me(OWN, OWN_ID, NODE, NODE_IP)
OURS = [node(OWN, NODE, NODE_IP, "10.1.0.0/24", "10.1.0.254")]


def told(cluster: str, nodes: list[Node], pods: list[IPEntry]) -> Told:
    return Told(
        cluster=cluster,
        cluster_id=IDS[cluster],
        nodes={it.name: it for it in nodes},
        addresses={it.ip: it for it in pods},
    )


MESH = [
    told(OWN, OURS, []),
    told(
        "cluster-b",
        [
            node("cluster-b", "b1", "192.168.0.2", "10.2.0.0/24", "10.2.0.254"),
            node("cluster-b", "b2", "192.168.0.3", "", "10.200.0.1"),
        ],
        [
            pod("10.2.0.7", "192.168.0.2", 2 << 16 | 7),
            pod("10.200.0.9", "192.168.0.3", 2 << 16 | 8),
            pod("fd00:2::9", "192.168.0.3", 2 << 16 | 8),
        ],
    ),
]
RIGHT = {
    "10.2.0.0/24": TUNNEL,
    "10.200.0.1/32": TUNNEL,
    "10.200.0.9/32": TUNNEL,
    "fd00:2::9/128": TUNNEL,
    RULES[4]: LOOKED_UP,
    RULES[6]: LOOKED_UP,
}


def found(present: Mapping[str, str], here: Here = HERE, *, most: int = 9) -> set[tuple[str, str]]:
    drifts = list(differences(here, MESH[0], MESH[1:], present, most=most))
    assert all(it.what.sentence() for it in drifts)
    return {(it.what.kind, it.what.key) for it in drifts}


def test_what_is_right_is_no_difference() -> None:
    assert found(RIGHT) == set()


@pytest.mark.parametrize("prefix", RIGHT)
def test_what_is_missing_or_leads_elsewhere_is_found(prefix: str) -> None:
    assert found({it: way for it, way in RIGHT.items() if it != prefix}) == {(MISSING, prefix)}
    assert found(RIGHT | {prefix: "by way of eth0"}) == {(WRONG, prefix)}
    assert found(RIGHT | {prefix: "192.168.0.2"}) == {(WRONG, prefix)}


@pytest.mark.parametrize("prefix", ["10.9.0.0/16", "10.2.0.7/32", "fd00:2::/64"])
def test_a_route_too_many_is_found(prefix: str) -> None:
    assert found(RIGHT | {prefix: TUNNEL}) == {(EXTRA, prefix)}


def test_without_the_tunnel_both_ways_are_right_but_not_by_way_of_another_node() -> None:
    here = HERE._replace(native=frozenset({"cluster-b"}))
    direct = {"10.2.0.0/24": "192.168.0.2", "10.200.0.9/32": "192.168.0.3"}
    assert found(RIGHT | direct, here) == found(RIGHT, here) == set()
    assert found(RIGHT | {"10.2.0.0/24": "192.168.0.3"}, here) == {(WRONG, "10.2.0.0/24")}
    assert found(RIGHT | {"fd00:2::9/128": "192.168.0.3"}, here) == {(WRONG, "fd00:2::9/128")}


def test_beyond_the_room_for_single_addresses_none_is_missed() -> None:
    fewer = {it: way for it, way in RIGHT.items() if it != "10.200.0.9/32"}
    assert found(fewer, most=1) == set()
    assert found(RIGHT | {"10.77.0.1/32": TUNNEL}, most=1) == {(EXTRA, "10.77.0.1/32")}


# --- two ways to work out the same ---------------------------------------------------------------

cidrs = st.sampled_from(["", "10.2.0.0/24", "10.2.0.0/16", "10.3.4.0/24", "10.2.7.0/24"])
overlays = st.sampled_from(["", "10.2.0.254", "10.200.0.1", "10.3.4.1"])
underlays = st.sampled_from(["192.168.0.2", "192.168.0.3", NODE_IP])
some_nodes = st.lists(
    st.builds(
        lambda cidr, overlay, ip: (cidr, overlay, ip), cidrs, overlays, underlays
    ),
    max_size=3,
)  # fmt: skip
addresses = st.sampled_from(
    ["10.2.0.7", "10.2.9.7", "10.3.4.1", "10.200.0.1", "192.168.0.2", "10.1.0.9", "fd00:2::9"]
)
some_pods = st.lists(st.tuples(addresses, underlays | st.sampled_from(["", "fd00::1"])), max_size=5)


def cluster(name: str, nodes: list[tuple[str, str, str]], pods: list[tuple[str, str]]) -> Told:
    made = [node(name, f"n{at}", ip, cidr, overlay) for at, (cidr, overlay, ip) in enumerate(nodes)]
    return told(name, made, [pod(ip, host, IDS[name] << 16 | 9) for ip, host in pods])


@given(some_nodes, some_pods, some_pods)
def test_the_agent_asks_for_the_same_routes(nodes, pods, own_pods) -> None:
    own, other = (
        told(OWN, OURS, [pod(*it, 70000) for it in own_pods]),
        cluster("cluster-b", nodes, pods),
    )
    agent = Agent().expect("cluster-b")
    agent.nodes(*OURS, *other.nodes.values())
    agent.pods(OWN, *own.addresses.values()).pods("cluster-b", *other.addresses.values())
    agent.synced(OWN, "cluster-b").settle()
    demand = Demand()
    Asking(ME, agent.dataplane, demand).ask(pods=frozenset(), complete=True)
    facts, _ = demand.all()
    wanted = ways(HERE, own, [other])
    assert facts.destinations == wanted.ranges.keys() | wanted.singles.keys()


def test_a_node_that_reserves_an_address_only_is_reached_there() -> None:
    lone = Node(
        name="b1",
        cluster="cluster-b",
        addresses=(NodeAddress("CiliumInternalIP", "10.200.0.1"),),
        cluster_id=2,
    )
    assert ways(HERE, MESH[0], [told("cluster-b", [lone], [])]).ranges == {}
