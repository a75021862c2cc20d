"""Generated clusters as facts: the same seed gives the same world, value by value. No I/O."""

import base64
import ipaddress
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec

from clustermesh import keys
from clustermesh.addresses import spelled
from clustermesh.keys import Kind, Layout
from clustermesh.model import (
    Capabilities,
    Cidr,
    ClusterConfig,
    ClusterService,
    Fact,
    Identity,
    IPEntry,
    Node,
    NodeAddress,
    Port,
)

PODS: Final = int(ipaddress.ip_address("10.0.0.0"))
NODES: Final = int(ipaddress.ip_address("172.16.0.0"))
FRONTENDS: Final = int(ipaddress.ip_address("100.64.0.0"))
PODS_V6: Final = int(ipaddress.ip_address("fd00:10::"))
NODES_V6: Final = int(ipaddress.ip_address("fd00:172::"))
FIRST_POD: Final = 10
PODS_OF_NODE: Final = 240
"""Addresses of a /24 after those that the node itself uses."""
NODES_OF_WORLD: Final = 1 << 16
"""How many /24 there are in 10.0.0.0/8."""
MASK_V4: Final = base64.b64encode(b"\xff\xff\xff\0").decode()
MASK_V6: Final = base64.b64encode(b"\xff" * 15 + b"\0").decode()
FIRST_IDENTITY: Final = 256


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """How large a world is. Counts are per cluster; raises ``ValueError`` for the impossible."""

    clusters: int = 4
    nodes: int = 250
    identities: int = 2_000
    endpoints: int = 25_000
    services: int = 500
    backends: int = 10
    first_id: int = 2
    max_clusters: int = 255
    ipv6: bool = False

    def __post_init__(self) -> None:
        """Addresses and numbers are finite."""
        if min(self.clusters, self.nodes, self.identities) < 1:
            raise ValueError("clusters, nodes and identities: expected at least 1 of each")
        if self.first_id + self.clusters - 1 > self.max_clusters:
            raise ValueError(
                f"clusters: {self.clusters} from id {self.first_id} on do not fit"
                f" into a mesh of {self.max_clusters}"
            )
        if self.endpoints > self.nodes * PODS_OF_NODE:
            raise ValueError(f"endpoints: expected at most {PODS_OF_NODE} on each node")
        if self.clusters * self.nodes > NODES_OF_WORLD:
            raise ValueError(f"nodes: expected at most {NODES_OF_WORLD} in all clusters together")
        room = len(keys.identity_range(self.first_id, self.max_clusters)) - FIRST_IDENTITY
        if self.identities > room:
            raise ValueError(f"identities: expected at most {room} in a cluster")


class Cluster:
    """One cluster of a world. Objects are numbered from 0; a new ``version`` of one is a change."""

    def __init__(self, shape: Shape, number: int) -> None:
        self.shape = shape
        self.id = shape.first_id + number
        self.name = f"cluster-{self.id:03}"
        self._first_node = number * shape.nodes
        self._first_identity = keys.identity_range(self.id, shape.max_clusters)[0] + FIRST_IDENTITY

    def config(self, layout: Layout) -> ClusterConfig:
        """What it says of itself."""
        capabilities = Capabilities(
            synced_canaries=True,
            cached=layout is Layout.CACHE,
            max_connected_clusters=self.shape.max_clusters,
        )
        return ClusterConfig(self.id, capabilities)

    def count(self, kind: Kind) -> int:
        """How many objects of a kind there are; other kinds than these four there are not."""
        counts = {
            Kind.NODES: self.shape.nodes,
            Kind.IDENTITIES: self.shape.identities,
            Kind.IPS: self.shape.endpoints * (2 if self.shape.ipv6 else 1),
            Kind.SERVICES: self.shape.services,
        }
        return counts.get(kind, 0)

    def entry(self, kind: Kind, at: int, version: int = 0) -> tuple[str, bytes]:
        """Name (what follows the prefix of the kind) and value of an object."""
        make: Mapping[Kind, Callable[[int, int], Fact]] = {
            Kind.NODES: self.node,
            Kind.IDENTITIES: self.identity,
            Kind.IPS: self.address,
            Kind.SERVICES: self.service,
        }
        fact = make[kind](at, version)
        return keys.name_of(fact), keys.encode(fact)

    def entries(self, kind: Kind) -> Iterator[tuple[str, bytes]]:
        """All of a kind, as they are at first."""
        return (self.entry(kind, at) for at in range(self.count(kind)))

    def node(self, at: int, version: int) -> Node:
        """A node with a /24 for its pods; a version is a label."""
        found = [
            NodeAddress("InternalIP", self._node_ip(at)),
            NodeAddress("CiliumInternalIP", _v4(self._pods(at) + 1)),
        ]
        six: Cidr | None = None
        if self.shape.ipv6:
            found.insert(1, NodeAddress("InternalIP", _v6(NODES_V6 + self._first_node + at)))
            six = Cidr(_v6(self._pods_v6(at)), MASK_V6)
        return Node(
            name=f"node-{at:04}",
            cluster=self.name,
            addresses=tuple(found),
            ipv4_alloc_cidr=Cidr(_v4(self._pods(at)), MASK_V4),
            ipv6_alloc_cidr=six,
            ipv4_health_ip=_v4(self._pods(at) + 2),
            cluster_id=self.id,
            source="custom-resource",
            labels={
                "kubernetes.io/hostname": f"node-{at:04}",
                "kubernetes.io/os": "linux",
                "lab/version": str(version),
            },
        )

    def identity(self, at: int, version: int) -> Identity:
        """Labels of an application in a namespace; an identity never changes, whatever version."""
        del version
        namespace = self._namespace(at)
        return Identity(
            self._first_identity + at,
            f"k8s:app=app-{at};"
            f"k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name={namespace};"
            f"k8s:io.cilium.k8s.policy.cluster={self.name};"
            f"k8s:io.cilium.k8s.policy.serviceaccount=default;"
            f"k8s:io.kubernetes.pod.namespace={namespace};",
        )

    def address(self, at: int, version: int) -> IPEntry:
        """An address of a pod; a version is another pod under the same address."""
        pod, six = (at >> 1, at & 1) if self.shape.ipv6 else (at, 0)
        node, offset = pod % self.shape.nodes, FIRST_POD + pod // self.shape.nodes
        app = (pod + version) % self.shape.identities
        return IPEntry(
            ip=_v6(self._pods_v6(node) + offset) if six else _v4(self._pods(node) + offset),
            host_ip=self._node_ip(node),
            id=self._first_identity + app,
            namespace=self._namespace(app),
            pod=f"app-{app}-{pod:05}-{version:04x}",
            service_account="default",
        )

    def service(self, at: int, version: int) -> ClusterService:
        """A global service of one port; a version is another set of backends."""
        shape = self.shape
        frontend = _v4(FRONTENDS + self._first_node + at)
        step = shape.backends * version
        pods = [(at * shape.backends + step + n) % shape.endpoints for n in range(shape.backends)]
        backends = {
            _v4(self._pods(pod % shape.nodes) + FIRST_POD + pod // shape.nodes): {
                "http": Port("TCP", 8080)
            }
            for pod in pods
        }
        return ClusterService(
            cluster=self.name,
            namespace=self._namespace(at),
            name=f"service-{at}",
            frontends={frontend: {"http": Port("TCP", 80)}},
            backends=dict(sorted(backends.items())),
            labels={"app": f"app-{at}"},
            selector={"app": f"app-{at}"},
            include_external=True,
            shared=True,
            cluster_id=self.id,
        )

    def _namespace(self, at: int) -> str:
        return f"ns-{at % max(1, math.isqrt(self.shape.identities))}"

    def _pods(self, node: int) -> int:
        return PODS + ((self._first_node + node) << 8)

    def _pods_v6(self, node: int) -> int:
        return PODS_V6 + ((self._first_node + node) << 8)

    def _node_ip(self, node: int) -> str:
        return _v4(NODES + self._first_node + node)


def clusters(shape: Shape) -> list[Cluster]:
    """All of a world."""
    return [Cluster(shape, number) for number in range(shape.clusters)]


def _v4(number: int) -> str:
    return spelled(number.to_bytes(4, "big"))


def _v6(number: int) -> str:
    return spelled(number.to_bytes(16, "big"))
