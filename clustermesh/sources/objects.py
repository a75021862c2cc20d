"""Kubernetes objects, with the fields that matter to the mesh and no others.

Decode with ``decode(kind, json)`` or ``convert(kind, builtins)``: unknown fields are ignored,
``null`` and absence mean the default that the API server would fill in.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from clustermesh import gojson
from clustermesh.model import Uint32


class ObjectKind(StrEnum):
    """Kinds that a source may deliver, by their Kubernetes name."""

    NAMESPACE = "Namespace"
    NODE = "Node"
    POD = "Pod"
    SERVICE = "Service"
    ENDPOINT_SLICE = "EndpointSlice"
    SERVICE_EXPORT = "ServiceExport"
    CILIUM_NODE = "CiliumNode"
    CILIUM_IDENTITY = "CiliumIdentity"
    CILIUM_ENDPOINT = "CiliumEndpoint"
    CILIUM_ENDPOINT_SLICE = "CiliumEndpointSlice"
    MESH_IDENTITY = "MeshIdentity"


class Wire(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """Base: Kubernetes spells fields in camel case."""


class Meta(Wire, frozen=True, gc=False):
    """metav1.ObjectMeta. ``labels`` and ``annotations`` None: absent, which differs from empty."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: str = ""
    deletion_timestamp: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class Namespace(Wire, frozen=True, gc=False):
    """v1 Namespace."""

    metadata: Meta


# --- v1 Node and Pod ---------------------------------------------------------------------------


class Address(Wire, frozen=True, gc=False):
    """An address of a v1 Node."""

    type: str = ""
    address: str = ""


class NodeSpec(Wire, frozen=True, gc=False):
    """Pod ranges; ``pod_cidr`` is the old single field."""

    pod_cidr: str = msgspec.field(name="podCIDR", default="")
    pod_cidrs: tuple[str, ...] = msgspec.field(name="podCIDRs", default=())


class NodeInfo(Wire, frozen=True, gc=False):
    """Part of what kubelet reports."""

    boot_id: str = msgspec.field(name="bootID", default="")


class NodeStatus(Wire, frozen=True, gc=False):
    """Addresses of a v1 Node."""

    addresses: tuple[Address, ...] = ()
    node_info: NodeInfo = NodeInfo()


class Node(Wire, frozen=True, gc=False):
    """v1 Node."""

    metadata: Meta
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class PodSpec(Wire, frozen=True, gc=False):
    """Where a pod runs and as whom."""

    node_name: str = ""
    service_account_name: str = ""
    host_network: bool = False


class PodIP(Wire, frozen=True, gc=False):
    """One address of a pod."""

    ip: str = ""


class PodStatus(Wire, frozen=True, gc=False):
    """``phase`` Succeeded and Failed have given their addresses back."""

    phase: str = ""
    host_ip: str = msgspec.field(name="hostIP", default="")
    pod_ip: str = msgspec.field(name="podIP", default="")
    pod_ips: tuple[PodIP, ...] = msgspec.field(name="podIPs", default=())


class Pod(Wire, frozen=True, gc=False):
    """v1 Pod."""

    metadata: Meta
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


# --- services ----------------------------------------------------------------------------------


class ServicePort(Wire, frozen=True, gc=False):
    """A port of a Service. The target port is the EndpointSlice's business."""

    name: str = ""
    protocol: str = "TCP"
    port: int = 0
    node_port: int = 0
    app_protocol: str = ""


class ClientIPConfig(Wire, frozen=True, gc=False):
    """Seconds that a client stays with its backend."""

    timeout_seconds: int | None = None


class SessionAffinityConfig(Wire, frozen=True, gc=False):
    """Configuration of session affinity."""

    client_ip: ClientIPConfig | None = msgspec.field(name="clientIP", default=None)


class ServiceSpec(Wire, frozen=True, gc=False):
    """What a Service asks for. ``selector`` None: absent."""

    type: str = "ClusterIP"
    cluster_ip: str = msgspec.field(name="clusterIP", default="")
    cluster_ips: tuple[str, ...] = msgspec.field(name="clusterIPs", default=())
    external_ips: tuple[str, ...] = msgspec.field(name="externalIPs", default=())
    external_name: str = ""
    ports: tuple[ServicePort, ...] = ()
    selector: dict[str, str] | None = None
    session_affinity: str = "None"
    session_affinity_config: SessionAffinityConfig | None = None
    ip_families: tuple[str, ...] = ()
    internal_traffic_policy: str | None = None
    external_traffic_policy: str = "Cluster"
    traffic_distribution: str | None = None
    publish_not_ready_addresses: bool = False
    load_balancer_ip: str = msgspec.field(name="loadBalancerIP", default="")
    load_balancer_source_ranges: tuple[str, ...] = ()


class Ingress(Wire, frozen=True, gc=False):
    """An address that a load balancer gave."""

    ip: str = ""
    hostname: str = ""


class LoadBalancer(Wire, frozen=True, gc=False):
    """What a load balancer gave."""

    ingress: tuple[Ingress, ...] = ()


class ServiceStatus(Wire, frozen=True, gc=False):
    """State of a Service."""

    load_balancer: LoadBalancer = LoadBalancer()


class Service(Wire, frozen=True, gc=False):
    """v1 Service."""

    metadata: Meta
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()


class Conditions(Wire, frozen=True, gc=False):
    """Conditions of an endpoint; None is unknown."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class ZoneName(Wire, frozen=True, gc=False):
    """A zone by name."""

    name: str = ""


class Hints(Wire, frozen=True, gc=False):
    """Whom an endpoint should serve."""

    for_zones: tuple[ZoneName, ...] = ()


class Endpoint(Wire, frozen=True, gc=False):
    """One endpoint of an EndpointSlice."""

    addresses: tuple[str, ...] = ()
    conditions: Conditions = Conditions()
    hostname: str = ""
    node_name: str = ""
    zone: str = ""
    hints: Hints = Hints()


class EndpointPort(Wire, frozen=True, gc=False):
    """One port of an EndpointSlice; ``port`` None means all ports."""

    name: str = ""
    protocol: str = "TCP"
    port: int | None = None
    app_protocol: str = ""


class EndpointSlice(Wire, frozen=True, gc=False):
    """discovery.k8s.io/v1 EndpointSlice."""

    metadata: Meta
    address_type: str = "IPv4"
    endpoints: tuple[Endpoint, ...] | None = ()
    ports: tuple[EndpointPort, ...] | None = ()


class ServiceExportSpec(Wire, frozen=True, gc=False):
    """What travels with an exported service."""

    exported_labels: dict[str, str] = {}
    exported_annotations: dict[str, str] = {}


class ServiceExport(Wire, frozen=True, gc=False):
    """multicluster.x-k8s.io/v1alpha1 (and v1beta1) ServiceExport."""

    metadata: Meta
    spec: ServiceExportSpec = ServiceExportSpec()


# --- cilium.io/v2 ------------------------------------------------------------------------------


class CiliumAddress(Wire, frozen=True, gc=False):
    """An address of a CiliumNode."""

    type: str = ""
    ip: str = ""


class Key(Wire, frozen=True, gc=False):
    """An encryption key's number."""

    key: int = 0


class Pair(Wire, frozen=True, gc=False):
    """One address per family."""

    ipv4: str = ""
    ipv6: str = ""


class PoolAllocation(Wire, frozen=True, gc=False):
    """What a node got from a pool."""

    pool: str = ""
    cidrs: tuple[str, ...] = ()


class Pools(Wire, frozen=True, gc=False):
    """Multi-pool IPAM."""

    allocated: tuple[PoolAllocation, ...] = ()


class Ipam(Wire, frozen=True, gc=False):
    """Address management of a CiliumNode."""

    pod_cidrs: tuple[str, ...] = msgspec.field(name="podCIDRs", default=())
    pools: Pools = Pools()


class CiliumNodeSpec(Wire, frozen=True, gc=False):
    """What a Cilium agent says of its node."""

    addresses: tuple[CiliumAddress, ...] = ()
    bootid: str = ""
    encryption: Key = Key()
    health: Pair = Pair()
    ingress: Pair = Pair()
    ipam: Ipam = Ipam()


class CiliumNode(Wire, frozen=True, gc=False):
    """cilium.io/v2 CiliumNode."""

    metadata: Meta
    spec: CiliumNodeSpec = CiliumNodeSpec()


class CiliumIdentity(Wire, frozen=True, gc=False):
    """cilium.io/v2 CiliumIdentity; its name is its number."""

    metadata: Meta
    security_labels: dict[str, str] = msgspec.field(name="security-labels", default_factory=dict)


class EndpointIdentity(Wire, frozen=True, gc=False):
    """The identity of an endpoint."""

    id: Uint32 = 0


class Networking(Wire, frozen=True, gc=False):
    """Addresses of an endpoint and its node's."""

    addressing: tuple[Pair, ...] = ()
    node: str = ""


class EndpointStatus(Wire, frozen=True, gc=False):
    """State of a CiliumEndpoint; nothing is exported before it has networking."""

    identity: EndpointIdentity = EndpointIdentity()
    networking: Networking | None = None
    encryption: Key = Key()
    service_account: str = msgspec.field(name="service-account", default="")


class CiliumEndpoint(Wire, frozen=True, gc=False):
    """cilium.io/v2 CiliumEndpoint."""

    metadata: Meta
    status: EndpointStatus = EndpointStatus()


class CoreCiliumEndpoint(msgspec.Struct, frozen=True, gc=False, rename="kebab"):
    """One endpoint inside a CiliumEndpointSlice."""

    name: str = ""
    id: Uint32 = 0
    networking: Networking | None = None
    encryption: Key = Key()
    service_account: str = ""


class CiliumEndpointSlice(Wire, frozen=True, gc=False):
    """cilium.io/v2alpha1 CiliumEndpointSlice: many endpoints of one ``namespace``."""

    metadata: Meta
    namespace: str = ""
    endpoints: tuple[CoreCiliumEndpoint, ...] = ()


# --- clustermesh.io/v1alpha1 -------------------------------------------------------------------


class MeshIdentitySpec(Wire, frozen=True, gc=False):
    """Whose number it is: the labels as an identity's value spells them (contract kvstore 2.4)."""

    labels: str = ""


class MeshIdentity(Wire, frozen=True, gc=False):
    """The record of a number given in flavour core; its name is the number."""

    metadata: Meta
    spec: MeshIdentitySpec = MeshIdentitySpec()


KubernetesObject = (
    Namespace
    | Node
    | Pod
    | Service
    | EndpointSlice
    | ServiceExport
    | CiliumNode
    | CiliumIdentity
    | CiliumEndpoint
    | CiliumEndpointSlice
    | MeshIdentity
)

TYPES: Mapping[ObjectKind, type[KubernetesObject]] = {
    ObjectKind.NAMESPACE: Namespace,
    ObjectKind.NODE: Node,
    ObjectKind.POD: Pod,
    ObjectKind.SERVICE: Service,
    ObjectKind.ENDPOINT_SLICE: EndpointSlice,
    ObjectKind.SERVICE_EXPORT: ServiceExport,
    ObjectKind.CILIUM_NODE: CiliumNode,
    ObjectKind.CILIUM_IDENTITY: CiliumIdentity,
    ObjectKind.CILIUM_ENDPOINT: CiliumEndpoint,
    ObjectKind.CILIUM_ENDPOINT_SLICE: CiliumEndpointSlice,
    ObjectKind.MESH_IDENTITY: MeshIdentity,
}
KINDS: Mapping[type[KubernetesObject], ObjectKind] = {type_: kind for kind, type_ in TYPES.items()}
CLUSTER_SCOPED = frozenset(
    {
        ObjectKind.NAMESPACE,
        ObjectKind.NODE,
        ObjectKind.CILIUM_NODE,
        ObjectKind.CILIUM_IDENTITY,
        ObjectKind.CILIUM_ENDPOINT_SLICE,
        ObjectKind.MESH_IDENTITY,
    }
)
GROUPS: Mapping[ObjectKind, str] = {
    ObjectKind.NAMESPACE: "",
    ObjectKind.NODE: "",
    ObjectKind.POD: "",
    ObjectKind.SERVICE: "",
    ObjectKind.ENDPOINT_SLICE: "discovery.k8s.io",
    ObjectKind.SERVICE_EXPORT: "multicluster.x-k8s.io",
    ObjectKind.CILIUM_NODE: "cilium.io",
    ObjectKind.CILIUM_IDENTITY: "cilium.io",
    ObjectKind.CILIUM_ENDPOINT: "cilium.io",
    ObjectKind.CILIUM_ENDPOINT_SLICE: "cilium.io",
    ObjectKind.MESH_IDENTITY: "clustermesh.io",
}
"""API group of each kind; the core group is empty."""


class Ref(msgspec.Struct, frozen=True, order=True, gc=False):
    """What an object is called. ``namespace`` is empty for cluster-scoped kinds."""

    kind: ObjectKind
    namespace: str
    name: str

    def __str__(self) -> str:
        """``Service web/front``, as messages to an operator have it."""
        return f"{self.kind} {self.namespace}/{self.name}".replace(" /", " ")


def ref(object_: KubernetesObject) -> Ref:
    """The name of an object."""
    kind = KINDS[type(object_)]
    namespace = "" if kind in CLUSTER_SCOPED else object_.metadata.namespace
    return Ref(kind, namespace, object_.metadata.name)


_READERS: Mapping[ObjectKind, gojson.Reader[Any]] = {
    kind: gojson.Reader(type_) for kind, type_ in TYPES.items()
}


def decode(kind: ObjectKind, data: bytes) -> KubernetesObject:
    """An object from JSON. Raises ``msgspec.ValidationError`` or ``DecodeError`` with the path."""
    object_: KubernetesObject = _READERS[kind].decode(data)
    return object_


def convert(kind: ObjectKind, value: object) -> KubernetesObject:
    """An object from dicts and lists. Raises ``msgspec.ValidationError`` with the path."""
    object_: KubernetesObject = _READERS[kind].convert(value)
    return object_
