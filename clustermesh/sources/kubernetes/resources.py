"""Where the API server keeps each kind, and which of its objects are wanted."""

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from clustermesh.sources.objects import CLUSTER_SCOPED, GROUPS, ObjectKind

MESH_MANAGED = "endpointslice-mesh-controller.cilium.io"
"""``endpointslice.kubernetes.io/managed-by`` of slices that mirror other clusters."""


class Flavour(StrEnum):
    """Where nodes, identities and endpoints come from."""

    CILIUM = "cilium"
    CORE = "core"


class Resource(msgspec.Struct, frozen=True):
    """One kind as the API serves it."""

    kind: ObjectKind
    plural: str
    versions: tuple[str, ...] = ("v1",)
    """In order of preference; the first that is served is used."""
    labels: str = ""
    """Label selector; contract kvstore 6.4 says which slices do not count."""
    fields: str = ""
    """Field selector."""
    optional: bool = False
    """Not served means: there are none."""

    @property
    def group(self) -> str:
        """API group; empty is the core group."""
        return GROUPS[self.kind]

    @property
    def title(self) -> str:
        """As in a role: ``services``, ``endpointslices.discovery.k8s.io``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def at(self, version: str) -> "Served":
        """This resource in one of its versions."""
        return Served(self, version)


class Served(msgspec.Struct, frozen=True):
    """A resource in the version that the server has."""

    resource: Resource
    version: str

    @property
    def path(self) -> str:
        """Of the collection, in all namespaces."""
        return f"{group_path(self.resource.group, self.version)}/{self.resource.plural}"

    def of(self, namespace: str, name: str) -> str:
        """Path of one object."""
        base = group_path(self.resource.group, self.version)
        if self.resource.kind not in CLUSTER_SCOPED:
            base += f"/namespaces/{namespace}"
        return f"{base}/{self.resource.plural}/{name}"

    def query(self, **extra: str) -> dict[str, str]:
        """Selectors and whatever else is asked for, without what is empty."""
        selectors = {"labelSelector": self.resource.labels, "fieldSelector": self.resource.fields}
        return {name: value for name, value in {**selectors, **extra}.items() if value}


def group_path(group: str, version: str) -> str:
    """Path under which a group's version lives."""
    return f"/apis/{group}/{version}" if group else f"/api/{version}"


EXPORTS = Resource(
    ObjectKind.SERVICE_EXPORT, "serviceexports", ("v1beta1", "v1alpha1"), optional=True
)
IMPORTS = Resource(
    ObjectKind.SERVICE_IMPORT, "serviceimports", ("v1beta1", "v1alpha1"), optional=True
)
_SHARED = (
    Resource(ObjectKind.NAMESPACE, "namespaces"),
    Resource(ObjectKind.SERVICE, "services"),
    Resource(
        ObjectKind.ENDPOINT_SLICE,
        "endpointslices",
        labels=f"endpointslice.kubernetes.io/managed-by!={MESH_MANAGED}",
    ),
    EXPORTS,
    IMPORTS,
)
_CILIUM = (
    Resource(ObjectKind.CILIUM_NODE, "ciliumnodes", ("v2",)),
    Resource(ObjectKind.CILIUM_IDENTITY, "ciliumidentities", ("v2",)),
    Resource(ObjectKind.CILIUM_ENDPOINT, "ciliumendpoints", ("v2",)),
    Resource(
        ObjectKind.CILIUM_ENDPOINT_SLICE, "ciliumendpointslices", ("v2", "v2alpha1"), optional=True
    ),
)
_CORE = (
    Resource(ObjectKind.NODE, "nodes"),
    Resource(
        ObjectKind.POD, "pods", fields="status.phase!=Succeeded,status.phase!=Failed"
    ),  # these have given their addresses back
)

RESOURCES: Mapping[Flavour, tuple[Resource, ...]] = {
    Flavour.CILIUM: _SHARED + _CILIUM,
    Flavour.CORE: _SHARED + _CORE,
}
RECORDS = Resource(ObjectKind.MESH_IDENTITY, "meshidentities", ("v1alpha1",))
"""Numbers of flavour core."""
SIGNS_OF_CILIUM = _CILIUM[:3]
"""A cluster that serves all of these is of flavour ``cilium``."""
