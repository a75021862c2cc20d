"""Node by node it comes to the same as from all nodes at once."""

import ipaddress
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from agent.addresses.admission import Admission
from agent.addresses.announced import Announced
from agent.addresses.entries import NodeInfo
from agent.addresses.overlaps import Claim, overlaps
from agent.addresses.routes import Route
from agent.facts import Me
from clustermesh.addresses import packed

Key = tuple[str, str]
IDS = {"a": 5, "b": 2, "c": 3, "d": 9}
ME = Me("a", 5, "a1", "192.168.0.1", native=frozenset("d"))

ranges = st.lists(
    st.sampled_from(
        ["10.0.0.0/8", "10.2.0.0/16", "10.2.3.0/24", "10.2.3.8/32", "10.3.0.0/16", "fd00::/64",
         "fd00::/80", "192.168.0.0/24"]
    ), max_size=2, unique=True
)  # fmt: skip
overlays = st.lists(
    st.sampled_from(["10.2.3.8", "10.2.3.9", "10.9.0.1", "fd00::1", "172.16.0.1"]),
    max_size=2, unique=True,
)  # fmt: skip
infos = st.builds(
    lambda cidrs, overlay, ip: (cidrs, overlay, ip),
    ranges, overlays, st.sampled_from(["192.168.0.2", "192.168.0.3", ""]),
)  # fmt: skip
keys = st.tuples(st.sampled_from("abcd"), st.sampled_from(["n1", "n2"]))
changes = st.lists(st.tuples(keys, st.none() | infos), max_size=12)


def info(key: Key, said: tuple[list[str], list[str], str] | None) -> NodeInfo | None:
    if said is None:
        return None
    cidrs, overlay, ip = said
    cluster, name = key
    addresses = (ip,) if ip else ()
    number = IDS[cluster]
    return NodeInfo(
        name, cluster, number, ip, "", tuple(cidrs), tuple(overlay), addresses, (), ()
    )  # fmt: skip


def from_scratch(nodes: Mapping[Key, NodeInfo]) -> dict[str, Route]:
    """The rule in plain words: ranges first, then overlay addresses that no range covers; of
    several nodes the first by cluster id and name."""
    order = sorted(nodes.values(), key=lambda node: (node.cluster_id, node.name))
    reachable = [node for node in order if node.underlay4]
    found: dict[str, Route] = {}
    for node in reachable:
        for cidr in node.cidrs:
            found.setdefault(cidr, Route(cidr, node.underlay4, node.cluster))
    covers = [ipaddress.ip_network(cidr) for cidr in found]
    for node in reachable:
        for text in node.overlay:
            address = ipaddress.ip_address(text)
            if not any(address in cover for cover in covers):
                cidr = f"{text}/{address.max_prefixlen}"
                found.setdefault(cidr, Route(cidr, node.underlay4, node.cluster))
    return found


@given(changes)
def test_routes_are_those_of_the_present_nodes(told) -> None:
    announced, present, routes = Announced(), dict[Key, NodeInfo](), dict[str, Route]()
    for key, said in told:
        node = info(key, said)
        shift = announced.put(*key, node)
        present.pop(key, None)
        if node is not None:
            present[key] = node
        before = routes
        routes = from_scratch(present)
        assert shift.came == routes.keys() - before.keys()
        assert shift.gone == before.keys() - routes.keys()
        assert {cidr for cidr in {*routes, *before}
                if routes.get(cidr) != before.get(cidr)} <= shift.touched  # fmt: skip
        assert all(announced.route(cidr) == routes.get(cidr) for cidr in {*routes, *before})
        for text in ("10.2.3.8", "10.2.9.9", "10.9.0.1", "172.16.0.1", "fd00::1", "fd00::1:0:0:1"):
            address = ipaddress.ip_address(text)
            covered = any(address in ipaddress.ip_network(cidr) for cidr in routes)
            assert announced.covers(packed(text)) == covered


def held_from_scratch(nodes: Mapping[Key, NodeInfo]) -> Mapping[str, str]:
    def claim(cluster: str) -> Claim:
        mine = [node for (of, _), node in nodes.items() if of == cluster]
        cidrs = [cidr for node in mine for cidr in node.cidrs]
        if cluster == ME.cluster:
            cidrs += [f"{ip}/32" for node in mine for ip in node.addresses]
        ends = [] if cluster == ME.cluster else [node.underlay4 for node in mine]
        return Claim(cluster, IDS[cluster], cidrs, ends, native=cluster == "d")

    return overlaps(claim("a"), [claim(it) for it in "bcd"])


@given(st.lists(changes, max_size=4))
def test_who_is_held_out_depends_on_the_present_nodes(told) -> None:
    admission, present, held = Admission(ME), dict[Key, NodeInfo](), {}
    for some in told:
        for key, said in some:
            node = info(key, said)
            admission.put(*key, node)
            present.pop(key, None)
            if node is not None:
                present[key] = node
        if admission.doubtful:
            held = admission.conclude()
        assert held == held_from_scratch(present)
