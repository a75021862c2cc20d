"""Facts as no generator of ours makes them: what the agent writes is what the audit works out.

Values go through the wire format and every check of a consumer, so only what is believed counts.
Each is told twice, first as something else; the maps must know nothing of that.
"""

from collections.abc import Mapping
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.audit.addresses import Here
from agent.audit.frontends import Circumstances
from agent.audit.judgement import Case, judge
from agent.audit.observed import AUDITED
from agent.audit.reading import Told
from agent.facts import AnyKind, LocalKind
from clustermesh import keys
from clustermesh.checks import BadFact
from clustermesh.keys import Kind, Origin
from clustermesh.local import Frontend, LocalBackend, LocalService, NamedPort, Scope
from clustermesh.model import (
    Cidr,
    ClusterService,
    EndpointSlice,
    IPEntry,
    Node,
    NodeAddress,
    Port,
    SliceEndpoint,
    SlicePort,
)
from tests.support.mesh import IDS, NODE, NODE_IP, OWN, OWN_ID, Agent, contents, garbage, writes

PEERS = ("cluster-b", "cluster-c")
Facts = dict[str, object]

USUAL = ["10.1.0.1", "10.2.0.1", "10.2.0.2", "10.3.0.1"]
addresses = st.sampled_from([*USUAL, "10.2.0.0", "192.168.0.2", "fd01::1", "fd02::1", "fd02::"])
mapped = st.just("::ffff:172.16.0.9")
hosts = st.sampled_from(["", NODE_IP, "192.168.0.2", "192.168.0.3", "fd00::2"])
protocols = st.sampled_from([*["TCP"] * 6, "UDP", "SCTP", "ANY", "", "tcp"])
names = st.sampled_from(["", "http", "http", "grpc"])
ports = st.sampled_from([80, 80, 80, 8080, 1, 0, 65535])
maybe = st.sampled_from([None, True, False])
kinds = st.sampled_from(["InternalIP", "ExternalIP", "CiliumInternalIP", "Hostname", "Other"])
cidrs = st.sampled_from([None, "10.9.0.0/25", "10.9.0.0/24", "10.9.1.128/25"])
cidrs6 = st.sampled_from([None, "fd09::/64", "fd09::/120"])
mistakes = st.sampled_from([*[None] * 20, "10.4.0.8/29", "192.168.0.0/24"])
"""Those with a 9 are each cluster's own (see ``_own``); mistakes overlap."""

named = st.dictionaries(names, st.builds(Port, protocols, ports), min_size=1, max_size=3)
slices = st.builds(
    EndpointSlice,
    cluster=st.just(""), cluster_id=st.just(0), namespace=st.just("shop"), name=st.just(""),
    labels=st.sampled_from(["web", "api"]).map(lambda it: {"kubernetes.io/service-name": it}),
    address_type=st.sampled_from(["IPv4", "IPv4", "IPv6"]),
    endpoints=st.lists(
        st.builds(
            SliceEndpoint, st.lists(addresses, min_size=1, max_size=2).map(tuple),
            maybe, maybe, maybe,
        ),
        min_size=1, max_size=3,
    ).map(tuple),
    ports=st.lists(
        st.builds(SlicePort, names, protocols, ports | st.sampled_from([None, -1, 65536 + 80])),
        min_size=1, max_size=3,
    ).map(tuple),
)  # fmt: skip
offers = st.builds(
    ClusterService,
    namespace=st.just("shop"), backends=st.dictionaries(addresses, named, min_size=1, max_size=3),
    shared=st.sampled_from([True, True, False]), include_external=st.booleans(),
)  # fmt: skip
places = addresses.map(lambda ip: (ip, None)) | st.sampled_from(
    [
        (cidr.ip, cidr.mask)
        for text in ("10.2.0.0/16", "0.0.0.0/0", "fd02::/16", "::/0")
        if (cidr := Cidr.of(text))
    ]
)
entries = st.builds(
    lambda place, host, number, key: IPEntry(*place, host, number, key),
    places, hosts,
    st.sampled_from([0, 1, 2, 6, 255, 2 << 16, 2 << 16 | 7, 3 << 16 | 9, 1 << 24]),
    st.sampled_from([0, 3, 255]),
)  # fmt: skip
nodes = st.builds(
    lambda known, four, more, six, health, ingress: Node(
        addresses=tuple(known) or None,
        ipv4_alloc_cidr=four and Cidr.of(four),
        ipv4_secondary_alloc_cidrs=(Cidr.of(more),) if more else None,  # type: ignore[arg-type]
        ipv6_alloc_cidr=six and Cidr.of(six),
        ipv4_health_ip=health,
        ipv6_ingress_ip=ingress,
    ),
    st.lists(st.builds(NodeAddress, kinds, hosts | hosts | addresses | mapped), max_size=3),
    cidrs, cidrs | mistakes, cidrs6,
    st.sampled_from(["", "10.2.0.9", "::ffff:10.2.0.9"]), st.sampled_from(["", "fd02::9"]),
)  # fmt: skip

local_services = st.builds(
    LocalService,
    namespace=st.just("shop"),
    frontends=st.lists(
        st.builds(
            Frontend, st.sampled_from(["10.96.0.1", "10.96.0.2", "fd96::1"]),
            ports, names, protocols,
            st.sampled_from([*[Scope.CLUSTER_IP] * 4, Scope.NODE_PORT, "Other"]),
        ),
        min_size=1, max_size=3,
    ).map(tuple),
    backends=st.dictionaries(
        addresses,
        st.builds(
            LocalBackend, st.just(""),
            st.lists(st.builds(NamedPort, names, protocols, ports), min_size=1, max_size=2).map(
                tuple
            ),
            st.booleans(), st.booleans(), st.booleans(), st.sampled_from([NODE, "a2", ""]),
        ),
        max_size=3,
    ).map(lambda found: tuple(_at(address, it) for address, it in found.items())),
    is_global=st.sampled_from([True, True, True, False]), shared=st.booleans(),
    affinity=st.sampled_from(["none", "local", "remote"]),
    session_affinity_seconds=st.sampled_from([0, 0, 60, 1 << 25]),
    internal_traffic_policy=st.sampled_from(["Cluster", "Cluster", "Cluster", "Local"]),
    external_traffic_policy=st.sampled_from(["Cluster", "Local"]),
)  # fmt: skip


def _at(address: str, found: LocalBackend) -> LocalBackend:
    return replace(found, address=address)


def _of_family(endpoint: SliceEndpoint, *, six: bool) -> SliceEndpoint:
    return replace(endpoint, addresses=tuple(it for it in endpoint.addresses if (":" in it) == six))


def _own(cidr: Cidr | None, number: int) -> Cidr | None:
    return cidr and replace(
        cidr, ip=cidr.ip.replace("10.9.", f"10.{number}.").replace("fd09", f"fd0{number}")
    )


def believed(cluster: str, kind: Kind, name: str, fact: object) -> tuple[str, object] | None:
    """Name and fact as a consumer has them, if he believes them."""
    number = IDS[cluster]
    if isinstance(fact, Node | ClusterService | EndpointSlice):
        fact = replace(fact, name=name, cluster=cluster, cluster_id=number)
    if isinstance(fact, Node):
        fact = replace(
            fact,
            ipv4_alloc_cidr=_own(fact.ipv4_alloc_cidr, number),
            ipv4_secondary_alloc_cidrs=tuple(
                it for cidr in fact.ipv4_secondary_alloc_cidrs or () if (it := _own(cidr, number))
            ),
            ipv6_alloc_cidr=_own(fact.ipv6_alloc_cidr, number),
        )
    if isinstance(fact, EndpointSlice):
        six = fact.address_type == "IPv6"
        fact = replace(fact, endpoints=tuple(_of_family(it, six=six) for it in fact.endpoints))
    with suppress(BadFact):
        key = keys.key_of(cluster, fact)  # type: ignore[arg-type]
        found = keys.decode(kind, Origin(cluster, number), key, keys.encode(fact))  # type: ignore[arg-type]
        return keys.name_of(fact), found  # type: ignore[arg-type]
    return None


def told_of(facts: Mapping[tuple[str, AnyKind], Facts], cluster: str) -> Told:
    return Told(
        cluster=cluster,
        cluster_id=IDS[cluster],
        nodes=facts[cluster, Kind.NODES],  # type: ignore[arg-type]
        addresses=dict(sorted(facts[cluster, Kind.IPS].items())),  # type: ignore[arg-type]
        offers=facts.get((cluster, Kind.SERVICES), {}),  # type: ignore[arg-type]
        slices=facts.get((cluster, Kind.ENDPOINT_SLICES), {}),  # type: ignore[arg-type]
        services=facts.get((cluster, LocalKind.SERVICES), {}),  # type: ignore[arg-type]
    )


@st.composite
def meshes(draw: st.DrawFn) -> tuple[dict[tuple[str, AnyKind], Facts], ...]:
    """What is said first, and what is said in the end."""
    first: dict[tuple[str, AnyKind], Facts] = {}
    last: dict[tuple[str, AnyKind], Facts] = {}
    for cluster in (OWN, *PEERS):
        told: list[tuple[Kind, st.SearchStrategy[object], list[str]]] = [
            (Kind.NODES, nodes, ["a1", "n1"]),
            (Kind.IPS, entries, ["x", "y", "z"]),
        ]
        if cluster != OWN:
            kind, those = draw(
                st.sampled_from([(Kind.SERVICES, offers), (Kind.ENDPOINT_SLICES, slices)])
            )
            told.append((kind, those, ["web", "api", "more"]))
        for kind, those, called in told:
            for turn in (first, last):
                facts = [believed(cluster, kind, it, draw(those)) for it in called]
                turn[cluster, kind] = dict(it for it in facts if it is not None)
    for turn in (first, last):
        services = {it: replace(draw(local_services), name=it) for it in ("api", "web")}
        turn[OWN, LocalKind.SERVICES] = {f"shop/{it}": fact for it, fact in services.items()}
    return first, last


def finish(agent: Agent, told: Mapping[tuple[str, AnyKind], Facts]) -> None:
    """Everybody has told all."""
    agent.synced(OWN)
    for cluster in PEERS:
        agent.synced(cluster, kinds=[kind for of, kind in told if of == cluster])
    agent.settle()


@settings(max_examples=settings().max_examples // 3)
@given(meshes(), st.booleans())
def test_the_agent_writes_what_the_audit_works_out(meshes, every_service: bool) -> None:
    first, last = meshes
    agent = Agent(kube_proxy_replacement=every_service).expect(*PEERS)
    for (cluster, kind), facts in first.items():
        agent.tell(cluster, kind, facts)
    agent.settle()
    for (cluster, kind), facts in last.items():
        gone = dict.fromkeys(first.get((cluster, kind), {}).keys() - facts.keys())
        agent.tell(cluster, kind, {**gone, **facts})
    finish(agent, last)
    case = Case(
        here=Here(OWN, OWN_ID, NODE, NODE_IP),
        given=Circumstances(every_service, NODE),
        own=told_of(last, OWN),
        remotes=[told_of(last, it) for it in PEERS],
        absent={},
        names={IDS[it]: it for it in PEERS},
        found={name: found for name, found in contents(agent.maps).items() if name in AUDITED},
        table_size=251,
    )
    assert [it.what.sentence() for it in judge(case).drifts] == []
    assert garbage(agent.maps) == []
    before, there = writes(agent.maps), contents(agent.maps)
    again = Agent(agent.maps, kube_proxy_replacement=every_service).expect(*PEERS)
    for (cluster, kind), facts in reversed(last.items()):
        again.tell(cluster, kind, dict(reversed(facts.items())))
    finish(again, last)
    assert contents(again.maps) == there
    assert writes(again.maps) == before
