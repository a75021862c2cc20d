"""Facts of a small mesh in few words, and the node's maps that follow from them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType

from agent.dataplane import Dataplane
from agent.facts import AnyKind, LocalKind, Me
from bpf.datapath import Maps, maps_in_memory
from bpf.specs import DatapathSettings
from clustermesh import local
from clustermesh.keys import Kind
from clustermesh.local import Frontend, LocalBackend, LocalService
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

OWN, OWN_ID, NODE, NODE_IP = "cluster-a", 1, "a1", "192.168.0.1"
IDS = {"cluster-a": 1, "cluster-b": 2, "cluster-c": 3, "cluster-d": 4}
VIP = "10.96.0.1"
OWN_KINDS: tuple[AnyKind, ...] = (Kind.NODES, Kind.IDENTITIES, Kind.IPS, LocalKind.SERVICES)
REMOTE_KINDS: tuple[AnyKind, ...] = (Kind.NODES, Kind.IDENTITIES, Kind.SERVICES, Kind.IPS)


@dataclass(frozen=True)
class Settings:
    """What a data plane asks of the agent's settings."""

    kube_proxy_replacement: bool = False
    table_size: int = 251
    host_routes: int = 100


def backend(
    address: str, *, state: str = "ready", port: int = 8080, **more: object
) -> LocalBackend:
    """A local endpoint: ready, terminating (serving still), gone (terminating only) or starting."""
    conditions = {
        "ready": (True, True, False),
        "terminating": (False, True, True),
        "gone": (False, False, True),
        "starting": (False, False, False),
    }
    ready, serving, terminating = conditions[state]
    return LocalBackend(
        address=address,
        ports=(local.NamedPort("http", "TCP", port),),
        ready=ready,
        serving=serving,
        terminating=terminating,
        **{"node": NODE, **more},
    )


def service(*backends: LocalBackend | str, name: str = "web", **more: object) -> LocalService:
    """A global service at VIP port 80 with these endpoints."""
    settings: dict[str, object] = {
        "frontends": (Frontend(VIP, 80, "http", "TCP"),),
        "is_global": True,
        "shared": True,
    }
    return LocalService(
        namespace="shop",
        name=name,
        backends=tuple(backend(it) if isinstance(it, str) else it for it in backends),
        **(settings | more),
    )


def offer(
    cluster: str, *addresses: str, name: str = "web", ports: Mapping[str, Port] | None = None,
    shared: bool = True,
) -> ClusterService:  # fmt: skip
    """What a remote cluster publishes."""
    named = dict(ports or {"http": Port("TCP", 8080)})
    return ClusterService(
        cluster=cluster,
        namespace="shop",
        name=name,
        backends=dict.fromkeys(addresses, named),
        shared=shared,
        cluster_id=IDS[cluster],
    )


def slice_of(cluster: str, name: str, *endpoints: SliceEndpoint, of: str = "web") -> EndpointSlice:
    """A slice of a service that a remote cluster publishes."""
    return EndpointSlice(
        cluster=cluster,
        cluster_id=IDS[cluster],
        namespace="shop",
        name=name,
        labels={"kubernetes.io/service-name": of},
        endpoints=endpoints,
        ports=(SlicePort("http", "TCP", 8080),),
    )


def node(
    cluster: str, name: str, ip: str, cidr: str = "", overlay: str = "", *more: NodeAddress
) -> Node:
    """A node with one underlay address and perhaps a pod range and an overlay address."""
    addresses = [NodeAddress("InternalIP", ip), *more]
    if overlay:
        addresses.append(NodeAddress("CiliumInternalIP", overlay))
    return Node(
        name=name,
        cluster=cluster,
        addresses=tuple(addresses),
        ipv4_alloc_cidr=Cidr.of(cidr) if cidr else None,
        cluster_id=IDS[cluster],
    )


def pod(address: str, host: str, identity: int) -> IPEntry:
    """An endpoint address."""
    return IPEntry(ip=address, host_ip=host, id=identity)


class Agent:
    """A data plane over maps that outlive it, told facts in few words."""

    def __init__(
        self,
        maps: Maps | None = None,
        names: Mapping[int, str] = MappingProxyType({}),
        **settings: object,
    ) -> None:
        chosen = Settings(**settings)
        room = replace(DatapathSettings.small(), table_size=chosen.table_size)
        self.maps = maps or maps_in_memory(room)
        self.me = Me(OWN, OWN_ID, NODE, NODE_IP)
        self.dataplane = Dataplane(self.maps, self.me, chosen, retry_after=0.02)
        self.dataplane.adopt(names)

    def expect(self, *clusters: str) -> "Agent":
        self.dataplane.expect(frozenset(clusters))
        return self

    def tell(self, cluster: str, kind: AnyKind, facts: Mapping[str, object]) -> "Agent":
        """Facts by key; None: gone."""
        if cluster != OWN:
            self.dataplane.identify(cluster, IDS[cluster])
        self.dataplane.apply(cluster, kind, list(facts.items()))  # type: ignore[arg-type]
        return self

    def local(self, *services: LocalService) -> "Agent":
        return self.tell(OWN, LocalKind.SERVICES, {f"shop/{s.name}": s for s in services})

    def remote(self, *services: ClusterService) -> "Agent":
        for it in services:
            self.tell(it.cluster, Kind.SERVICES, {f"shop/{it.name}": it})
        return self

    def nodes(self, *nodes: Node) -> "Agent":
        for it in nodes:
            self.tell(it.cluster, Kind.NODES, {it.name: it})
        return self

    def pods(self, cluster: str, *entries: IPEntry) -> "Agent":
        return self.tell(cluster, Kind.IPS, {entry.ip: entry for entry in entries})

    def synced(self, *clusters: str, kinds: Iterable[AnyKind] = ()) -> "Agent":
        for cluster in clusters:
            if cluster != OWN:
                self.dataplane.identify(cluster, IDS[cluster])
            for kind in kinds or (OWN_KINDS if cluster == OWN else REMOTE_KINDS):
                self.dataplane.synced(cluster, kind)
        return self

    def settle(self) -> "Agent":
        self.dataplane.settle()
        return self


def contents(maps: Maps) -> dict[str, dict[bytes, bytes]]:
    """Every entry of every map."""
    found = {}
    for field in fields(maps):
        target = getattr(maps, field.name)
        if hasattr(target, "put_many"):
            found[field.name] = dict(target.items())
        elif hasattr(target, "swap_many"):
            found[field.name] = {key: target.read(key) or b"" for key in list(target.keys())}
    return found


def writes(maps: Maps) -> int:
    """Entries written or removed so far, as the kernel would count."""
    return sum(getattr(getattr(maps, field.name), "writes", 0) for field in fields(maps))


def garbage(maps: Maps) -> list[str]:
    """Entries that no frontend accounts for."""
    found = []
    now = contents(maps)
    for family in "46":
        services = now["services" + family]
        named = {value[6:8] for value in services.values()}
        backends = {value[:4] for key, value in services.items() if _slot(key)}
        found += [f"backend {key.hex()}" for key in now["backends" + family].keys() - backends]
        found += [f"reverse NAT {key.hex()}" for key in now["reverse_nat" + family].keys() - named]
        found += [f"table {key.hex()}" for key in now["tables" + family].keys() - named]
        places = {key[: len(key) - 6] for key in services if not _slot(key)}
        found += [f"slot {key.hex()}" for key in services if key[: len(key) - 6] not in places]
    return found


def _slot(key: bytes) -> int:
    return int.from_bytes(key[-6:-4], "little")
