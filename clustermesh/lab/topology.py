"""What a lab consists of, as values: clusters, nodes, workloads, services and their addresses."""

import ipaddress
import re
import string
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import msgspec
import yaml

from clustermesh.lab.errors import LabError

LAB_NAME = re.compile(r"[a-z][a-z0-9]{0,11}")
CLUSTER_NAME = re.compile(r"([a-z0-9][-a-z0-9]{0,30})?[a-z0-9]")
OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")
MAX_CLUSTERS = 254
MAX_NODES = 200
LAST_DERIVED_ID = 99

ETCD_PORT = 2379
ECHO_PORT = 8080
SERVICE_PORT = 80
POD_GATEWAY = "169.254.1.1"
POD_GATEWAY6 = "fe80::1"

GLOBAL = "service.cilium.io/global"


class Flavour(StrEnum):
    """Whose objects describe nodes and pods: Kubernetes' own, or Cilium's custom resources."""

    CORE = "core"
    CILIUM = "cilium"


class PodNetwork(StrEnum):
    """How the stand-in CNI gives pods their addresses and routes."""

    RANGES = "ranges"
    """Each node announces the range that all its pods are in."""
    VPC = "vpc"
    """Nodes announce none; two rules for each pod lead around the main table (VPC CNI's shape)."""
    BORROWED = "borrowed"
    """Every other pod has an address of the next node's range (Calico's shape)."""


class Workload(
    msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True
):
    """So many equal pods, spread over the nodes in turn."""

    name: str
    replicas: int = 1
    namespace: str = "default"


class Service(
    msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True
):
    """A service in front of one workload, or of none (a service without backends)."""

    name: str
    workload: str = ""
    namespace: str = "default"
    annotations: dict[str, str] = {}
    headless: bool = False


class Cluster(
    msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True
):
    """One cluster. An empty pod or service range means: the one that follows from the id."""

    name: str
    id: int
    nodes: int = 2
    pod_cidr: str = ""
    service_cidr: str = ""
    flavour: Flavour = Flavour.CORE
    network: PodNetwork = PodNetwork.RANGES
    workloads: tuple[Workload, ...] = (
        Workload(name="rebel-base", replicas=2),
        Workload(name="client", replicas=2),
    )
    services: tuple[Service, ...] = (
        Service(name="rebel-base", workload="rebel-base", annotations={GLOBAL: "true"}),
        Service(name="private-base", workload="rebel-base"),
        Service(name="empty-base", annotations={GLOBAL: "true"}),
    )

    def node_names(self) -> tuple[str, ...]:
        return tuple(f"node-{number}" for number in range(1, self.nodes + 1))


class Topology(
    msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True
):
    """A whole lab. The flags of each program are passed on as they stand."""

    clusters: tuple[Cluster, ...]
    underlay: str = "172.30.0.0/16"
    underlay6: str = "fd00:30::/64"
    ipv6: bool = False
    mtu: int = 1500
    pod_mtu: int = 1500
    max_connected_clusters: int = 255
    agent_flags: tuple[str, ...] = ()
    apiserver_flags: tuple[str, ...] = ()
    kvstoremesh: bool = False
    """One in each cluster, and agents that read remote clusters from the own etcd."""
    kvstoremesh_flags: tuple[str, ...] = ()

    def cluster(self, name: str) -> Cluster:
        for cluster in self.clusters:
            if cluster.name == name:
                return cluster
        known = ", ".join(cluster.name for cluster in self.clusters)
        raise LabError(f"this lab has no cluster {name!r}; it has {known}.")


def default_topology(
    *, clusters: int = 2, nodes: int = 2, ipv6: bool = False, flavour: Flavour = Flavour.CORE
) -> Topology:
    """``cluster-a`` with id 1, ``cluster-b`` with id 2, and so on."""
    if not 1 <= clusters <= len(string.ascii_lowercase):
        raise LabError(f"between 1 and 26 clusters can be named by letter, not {clusters}.")
    return checked(
        Topology(
            ipv6=ipv6,
            clusters=tuple(
                Cluster(name=f"cluster-{letter}", id=number, nodes=nodes, flavour=flavour)
                for number, letter in enumerate(string.ascii_lowercase[:clusters], 1)
            ),
        )
    )


def load_topology(path: Path) -> Topology:
    """A topology from YAML; ``LabError`` names the field that is wrong."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        return checked(msgspec.convert(document, Topology, strict=False))
    except OSError as error:
        raise LabError(f"cannot read the topology {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise LabError(f"{path} is not text in UTF-8: {error.reason}.") from error
    except yaml.YAMLError as error:
        raise LabError(f"{path} is not YAML: {' '.join(str(error).split())}.") from error
    except msgspec.ValidationError as error:
        raise LabError(f"{path}: {error}.") from error


def checked(topology: Topology) -> Topology:
    """The topology itself; ``LabError`` with the first thing that is wrong."""
    for complaint in _complaints(topology):
        raise LabError(f"the topology cannot be built: {complaint}.")
    return topology


def _complaints(topology: Topology) -> Iterator[str]:
    if not 1 <= len(topology.clusters) <= MAX_CLUSTERS:
        yield f"between 1 and {MAX_CLUSTERS} clusters, not {len(topology.clusters)}"
    yield from _twice("cluster name", [cluster.name for cluster in topology.clusters])
    yield from _twice("cluster id", [str(cluster.id) for cluster in topology.clusters])
    for cluster in topology.clusters:
        yield from _cluster_complaints(cluster, topology.max_connected_clusters)


def _cluster_complaints(cluster: Cluster, max_id: int) -> Iterator[str]:
    where = f"cluster {cluster.name!r}"
    if not CLUSTER_NAME.fullmatch(cluster.name):
        yield f"{where}: a name is 1 to 32 of a-z, 0-9 and -, with no - at either end"
    if not 1 <= cluster.id <= max_id:
        yield f"{where}: the id must be between 1 and {max_id}, not {cluster.id}"
    if not 1 <= cluster.nodes <= MAX_NODES:
        yield f"{where}: between 1 and {MAX_NODES} nodes, not {cluster.nodes}"
    if cluster.id > LAST_DERIVED_ID and not (cluster.pod_cidr and cluster.service_cidr):
        yield f"{where}: pod-cidr and service-cidr must be given for an id above {LAST_DERIVED_ID}"
    yield from _object_complaints(cluster, where)


def _object_complaints(cluster: Cluster, where: str) -> Iterator[str]:
    workloads = [workload.name for workload in cluster.workloads]
    for name in (*workloads, *(service.name for service in cluster.services)):
        if not OBJECT_NAME.fullmatch(name):
            yield f"{where}: {name!r} is not a name (at most 40 of a-z, 0-9 and -)"
    yield from _twice(f"{where}: workload", workloads)
    yield from _twice(f"{where}: service", [f"{s.namespace}/{s.name}" for s in cluster.services])
    for service in cluster.services:
        if service.workload and service.workload not in workloads:
            yield f"{where}: service {service.name!r}: no workload {service.workload!r}"


def _twice(what: str, values: list[str]) -> Iterator[str]:
    for value in sorted({value for value in values if values.count(value) > 1}):
        yield f"{what} {value!r} is used twice"


class Addresses:
    """Which address everything in a topology has. All of it follows from ids and order."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self._order = {cluster.name: index for index, cluster in enumerate(topology.clusters, 1)}
        self._underlay = ipaddress.IPv4Network(topology.underlay)
        self._underlay6 = ipaddress.IPv6Network(topology.underlay6)

    def families(self) -> tuple[int, ...]:
        return (4, 6) if self.topology.ipv6 else (4,)

    def underlay_prefix(self, family: int) -> int:
        return self._underlay.prefixlen if family == 4 else self._underlay6.prefixlen

    def control_plane(self, cluster: str, family: int = 4) -> str:
        return self._on_underlay(cluster, 1, family)

    def node(self, cluster: str, node: int, family: int = 4) -> str:
        """``node`` counts from 1."""
        return self._on_underlay(cluster, 10 + node, family)

    def pod_cidr(self, cluster: str, node: int, family: int = 4) -> str:
        if family == 6:
            return f"fd00:10:{self._id(cluster):x}:{node:x}::/64"
        whole = ipaddress.IPv4Network(self.cluster_pod_cidr(cluster))
        size = 2 ** (32 - 24)
        return f"{whole.network_address + node * size}/24"

    def cluster_pod_cidr(self, cluster: str) -> str:
        spec = self.topology.cluster(cluster)
        return spec.pod_cidr or f"10.{spec.id}.0.0/16"

    def overlay(self, cluster: str, node: int, family: int = 4) -> str:
        """The node's own address inside its pod range: the first one."""
        return str(ipaddress.ip_network(self.pod_cidr(cluster, node, family))[1])

    def pod(self, cluster: str, node: int, slot: int, family: int = 4) -> str:
        """``slot`` counts the pods of a node from 0; their addresses begin at .10, borrowed ones
        at .110 of the range that they are taken from.
        """
        owner = self.lender(cluster, node, slot)
        first = 10 if owner == node else 110
        return str(ipaddress.ip_network(self.pod_cidr(cluster, owner, family))[first + slot])

    def lender(self, cluster: str, node: int, slot: int) -> int:
        """The node whose range the pod's address is in."""
        spec = self.topology.cluster(cluster)
        borrows = spec.network is PodNetwork.BORROWED and slot % 2 == 0
        return node % spec.nodes + 1 if borrows else node

    def announced(self, cluster: str, node: int) -> list[str]:
        """Pod ranges that the node's object names."""
        if self.topology.cluster(cluster).network is PodNetwork.VPC:
            return []
        return [self.pod_cidr(cluster, node, family) for family in self.families()]

    def service(self, cluster: str, service: int, family: int = 4) -> str:
        """``service`` counts the services of a cluster from 0; their addresses begin at .10."""
        spec = self.topology.cluster(cluster)
        if family == 6:
            return str(ipaddress.IPv6Network(f"fd00:{100 + spec.id:x}::/112")[10 + service])
        cidr = spec.service_cidr or f"10.{100 + spec.id}.0.0/16"
        return str(ipaddress.IPv4Network(cidr)[10 + service])

    def _id(self, cluster: str) -> int:
        return self.topology.cluster(cluster).id

    def _on_underlay(self, cluster: str, host: int, family: int) -> str:
        offset = self._order[cluster] * 256 + host
        return str(self._underlay[offset] if family == 4 else self._underlay6[offset])
