"""What the maps hold depends on the present facts, never on how they came about.

A machine changes a small mesh in every way there is: facts come and go, peers are lost and found
again, clusters are added and removed, the agent is restarted. Whenever it looks, the maps must be
those of an agent that heard only the present facts, from scratch, and nothing may be left over.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from agent.facts import AnyKind, LocalKind
from bpf.datapath import Maps
from clustermesh.keys import Kind
from clustermesh.local import Frontend
from clustermesh.model import IPEntry, SliceEndpoint
from tests.support import lb
from tests.support.mesh import (
    IDS,
    OWN,
    OWN_KINDS,
    Agent,
    backend,
    contents,
    garbage,
    node,
    offer,
    pod,
    service,
    slice_of,
    writes,
)

REMOTES = ("cluster-b", "cluster-c", "cluster-d")
SLICED = "cluster-d"
USUAL = dict(IDS)
VIPS = ("10.96.0.1", "10.96.0.2", "fd00::1")
Facts = dict[tuple[str, AnyKind], dict[str, object]]

names = st.sampled_from(["web", "api"])
clusters = st.sampled_from(REMOTES)
addresses = st.sampled_from(
    ["10.1.0.1", "10.2.0.1", "10.2.0.2", "10.3.0.1", "172.20.0.1", "fd01::1"]
)
several = st.lists(addresses, unique=True, max_size=4)
states = st.sampled_from(["ready", "ready", "ready", "terminating", "starting"])
affinities = st.sampled_from(["none", "local", "remote"])
hosts = st.sampled_from(["192.168.0.2", "192.168.0.3"])
cidrs = st.sampled_from(["10.2.0.0/24", "10.3.0.0/24", "10.2.0.0/25", "10.4.0.0/16", ""])
policies = st.sampled_from([
    {},
    {},
    {"service.clustermesh.io/weights": "local=3,cluster-b=1"},
    {"service.clustermesh.io/failover": "cluster-c,local,*"},
    {"service.clustermesh.io/min-local": "2"},
])  # fmt: skip


def kinds_of(cluster: str) -> tuple[AnyKind, ...]:
    if cluster == OWN:
        return OWN_KINDS
    services = Kind.ENDPOINT_SLICES if cluster == SLICED else Kind.SERVICES
    return (Kind.NODES, Kind.IDENTITIES, services, Kind.IPS)


def tell_all(agent: Agent, facts: Facts, clusters: frozenset[str]) -> Agent:
    """Everything there is to know, and that it is everything."""
    agent.expect(*clusters)
    for cluster in (OWN, *sorted(clusters)):
        for kind in kinds_of(cluster):
            agent.tell(cluster, kind, facts.get((cluster, kind), {}))
            agent.dataplane.synced(cluster, kind)
    return agent


def picture(maps: Maps) -> dict[str, object]:
    """What packets and connections can tell, without the numbers that may differ."""
    now = contents(maps)
    seen: dict[str, object] = {name: now[name] for name in ("ipcache", "tunnel", "nodes")}
    for vip in VIPS:
        seen[vip] = lb.where(maps, vip, 80)
        if seen[vip]:
            seen[vip] = (lb.slots(maps, vip, 80), lb.shares(maps, vip, 80))
    return seen


def renumbered(fact: object, old: int, new: int) -> object:
    """The same fact of a cluster whose id was another."""
    if isinstance(fact, IPEntry):
        return replace(fact, id=fact.id - (old << 16) + (new << 16))
    return replace(fact, cluster_id=new)  # type: ignore[type-var]  # all others have one


class Mesh(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.facts: Facts = {}
        self.configured = frozenset({"cluster-b"})
        self.agent = tell_all(Agent(), self.facts, self.configured)

    def change(self, cluster: str, kind: AnyKind, key: str, fact: object) -> None:
        known = self.facts.setdefault((cluster, kind), {})
        if fact is None:
            known.pop(key, None)
        else:
            known[key] = fact
        if cluster == OWN or cluster in self.configured:
            self.agent.tell(cluster, kind, {key: fact})

    # -- facts come and go

    @rule(name=names, there=several, data=st.data(), policy=policies, affinity=affinities,
          is_global=st.booleans())  # fmt: skip
    def local_service(
        self, name: str, there: list[str], data: st.DataObject, policy: dict[str, str],
        affinity: str, is_global: bool,
    ) -> None:  # fmt: skip
        if affinity == "remote" and "service.clustermesh.io/min-local" in policy:
            policy = {}
        vips = data.draw(st.lists(st.sampled_from(VIPS), unique=True))
        made = service(
            *(backend(address, state=data.draw(states)) for address in there),
            name=name,
            frontends=tuple(Frontend(vip, 80, "http", "TCP") for vip in vips),
            is_global=is_global,
            affinity=affinity,
            annotations=policy,
            session_affinity_seconds=data.draw(st.sampled_from([0, 30])),
        )
        self.change(OWN, LocalKind.SERVICES, f"shop/{name}", made)

    @rule(name=names)
    def no_local_service(self, name: str) -> None:
        self.change(OWN, LocalKind.SERVICES, f"shop/{name}", None)

    @rule(cluster=clusters, name=names, there=several, shared=st.booleans())
    def remote_service(self, cluster: str, name: str, there: list[str], shared: bool) -> None:
        if cluster == SLICED:
            endpoints = [SliceEndpoint((address,)) for address in there if ":" not in address]
            made: object = slice_of(cluster, f"{name}-1", *endpoints, of=name)
            self.change(cluster, Kind.ENDPOINT_SLICES, f"shop/{name}-1", made)
        else:
            made = offer(cluster, *there, name=name, shared=shared)
            self.change(cluster, Kind.SERVICES, f"shop/{name}", made)

    @rule(cluster=clusters, name=names)
    def no_remote_service(self, cluster: str, name: str) -> None:
        if cluster == SLICED:
            self.change(cluster, Kind.ENDPOINT_SLICES, f"shop/{name}-1", None)
        else:
            self.change(cluster, Kind.SERVICES, f"shop/{name}", None)

    @rule(cluster=st.sampled_from((OWN, *REMOTES)), name=st.sampled_from(["a1", "n1", "n2"]),
          host=hosts, cidr=cidrs, overlay=addresses)  # fmt: skip
    def a_node(self, cluster: str, name: str, host: str, cidr: str, overlay: str) -> None:
        self.change(cluster, Kind.NODES, name, node(cluster, name, host, cidr, overlay))

    @rule(cluster=st.sampled_from((OWN, *REMOTES)), name=st.sampled_from(["a1", "n1", "n2"]))
    def no_node(self, cluster: str, name: str) -> None:
        self.change(cluster, Kind.NODES, name, None)

    @rule(cluster=st.sampled_from((OWN, *REMOTES)), address=addresses, host=hosts,
          number=st.integers(1, 3))  # fmt: skip
    def a_pod(self, cluster: str, address: str, host: str, number: int) -> None:
        entry = pod(address, host, (IDS[cluster] << 16) + number)
        self.change(cluster, Kind.IPS, address, entry)

    @rule(cluster=st.sampled_from((OWN, *REMOTES)), address=addresses)
    def no_pod(self, cluster: str, address: str) -> None:
        self.change(cluster, Kind.IPS, address, None)

    # -- peers are lost and found, clusters come and go, the agent dies

    @rule(cluster=st.sampled_from((OWN, *REMOTES)), data=st.data())
    def an_outage(self, cluster: str, data: st.DataObject) -> None:
        """While nobody looked, some facts went."""
        if cluster != OWN and cluster not in self.configured:
            return
        self.agent.dataplane.unsynced(cluster)
        self.agent.dataplane.unconfirmed(cluster)
        for kind in kinds_of(cluster):
            known = self.facts.get((cluster, kind), {})
            for key in data.draw(st.lists(st.sampled_from(sorted(known)), unique=True)
                                 if known else st.just([])):  # fmt: skip
                del known[key]
            self.agent.tell(cluster, kind, known)
            self.agent.dataplane.synced(cluster, kind)

    @rule(cluster=clusters)
    def connect(self, cluster: str) -> None:
        self.configured |= {cluster}
        tell_all(self.agent, self.facts, self.configured)

    @rule(cluster=clusters)
    def disconnect(self, cluster: str) -> None:
        if cluster in self.configured:
            self.configured -= {cluster}
            self.agent.dataplane.drain(cluster)
            self.agent.expect(*self.configured)

    @rule(cluster=clusters, number=st.sampled_from([2, 3, 4, 250]))
    def another_id(self, cluster: str, number: int) -> None:
        """The cluster leaves as one and comes back as another, with the same facts."""
        if number in IDS.values():
            return
        old, IDS[cluster] = IDS[cluster], number
        for kind in kinds_of(cluster):
            known = self.facts.get((cluster, kind), {})
            known.update({key: renumbered(fact, old, number) for key, fact in known.items()})
        if cluster in self.configured:
            self.agent.dataplane.drain(cluster)
            tell_all(self.agent, self.facts, self.configured)

    def teardown(self) -> None:
        IDS.update(USUAL)

    @rule(drained_meanwhile=st.booleans())
    def restart(self, drained_meanwhile: bool) -> None:
        if drained_meanwhile:
            self.configured = frozenset()
        self.agent = tell_all(Agent(self.agent.maps), self.facts, self.configured)

    @rule()
    def write(self) -> None:
        self.agent.settle()

    # -- and whenever one looks

    @precondition(lambda self: hasattr(self, "agent"))
    @rule()
    def the_maps_are_those_of_the_present_facts(self) -> None:
        self.agent.settle()
        scratch = tell_all(Agent(), self.facts, self.configured).settle()
        assert picture(self.agent.maps) == picture(scratch.maps)
        assert garbage(self.agent.maps) == []
        assert self.agent.dataplane.routes() == scratch.dataplane.routes()

    @precondition(lambda self: hasattr(self, "agent"))
    @rule()
    def a_restart_writes_nothing(self) -> None:
        self.agent.settle()
        before = writes(self.agent.maps)
        self.agent = tell_all(Agent(self.agent.maps), self.facts, self.configured).settle()
        assert writes(self.agent.maps) == before

    @invariant()
    def nothing_refers_to_what_is_not_there(self) -> None:
        if hasattr(self, "agent"):
            assert lb.broken_references(self.agent.maps) == []


TestMesh = Mesh.TestCase
TestMesh.settings = settings(stateful_step_count=30)
