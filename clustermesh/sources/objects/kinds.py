"""The kinds of object, what each is called, and how it is read."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from clustermesh import gojson
from clustermesh.sources.objects.cilium import (
    CiliumEndpoint,
    CiliumEndpointSlice,
    CiliumIdentity,
    CiliumNode,
)
from clustermesh.sources.objects.core import Namespace, Node, Pod
from clustermesh.sources.objects.mesh import MeshIdentity
from clustermesh.sources.objects.services import (
    EndpointSlice,
    Service,
    ServiceExport,
    ServiceImport,
)


class ObjectKind(StrEnum):
    """Kinds that a source may deliver, by their Kubernetes name."""

    NAMESPACE = "Namespace"
    NODE = "Node"
    POD = "Pod"
    SERVICE = "Service"
    ENDPOINT_SLICE = "EndpointSlice"
    SERVICE_EXPORT = "ServiceExport"
    SERVICE_IMPORT = "ServiceImport"
    CILIUM_NODE = "CiliumNode"
    CILIUM_IDENTITY = "CiliumIdentity"
    CILIUM_ENDPOINT = "CiliumEndpoint"
    CILIUM_ENDPOINT_SLICE = "CiliumEndpointSlice"
    MESH_IDENTITY = "MeshIdentity"


KubernetesObject = (
    Namespace
    | Node
    | Pod
    | Service
    | EndpointSlice
    | ServiceExport
    | ServiceImport
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
    ObjectKind.SERVICE_IMPORT: ServiceImport,
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
    ObjectKind.SERVICE_IMPORT: "multicluster.x-k8s.io",
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
