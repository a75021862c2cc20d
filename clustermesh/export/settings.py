"""What of a cluster is published, and as whom."""

from enum import StrEnum

import msgspec

from clustermesh.model import Capabilities, ClusterConfig
from clustermesh.sources.objects import ObjectKind


class Flavour(StrEnum):
    """Where nodes, identities and addresses come from."""

    CILIUM = "cilium"
    CORE = "core"


class SliceExport(StrEnum):
    """How services travel; the values are those of the capability (contract kvstore 2.1, 2.7)."""

    SERVICES_ONLY = ""
    BOTH = "services-and-endpointslices"
    SLICES_ONLY = "endpointslices-only"


SHARED_KINDS = frozenset({ObjectKind.NAMESPACE, ObjectKind.SERVICE, ObjectKind.ENDPOINT_SLICE})


class ExportSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One cluster's settings.

    ``global_namespaces``: namespaces without the annotation export too (contract kvstore 6.4).
    ``first_address_is_overlay``: flavour core, nodes without an overlay annotation: the first
    address of each pod range is the CNI's own on the node (flannel, k3s, kube-router, kubenet).
    """

    cluster: str
    cluster_id: int
    max_clusters: int = 255
    flavour: Flavour = Flavour.CILIUM
    cilium_endpoint_slices: bool = False
    mcs_api: bool = False
    slices: SliceExport = SliceExport.SERVICES_ONLY
    global_namespaces: bool = True
    first_address_is_overlay: bool = False

    @property
    def kinds(self) -> frozenset[ObjectKind]:
        """What a source must deliver."""
        if self.flavour is Flavour.CORE:
            own = {ObjectKind.NODE, ObjectKind.POD}
        else:
            own = {ObjectKind.CILIUM_NODE, ObjectKind.CILIUM_IDENTITY}
            own.add(
                ObjectKind.CILIUM_ENDPOINT_SLICE
                if self.cilium_endpoint_slices
                else ObjectKind.CILIUM_ENDPOINT
            )
        if self.mcs_api:
            own.add(ObjectKind.SERVICE_EXPORT)
        return SHARED_KINDS | own


def cluster_config(settings: ExportSettings) -> ClusterConfig:
    """The handshake value that tells peers what this cluster publishes."""
    return ClusterConfig(
        id=settings.cluster_id,
        capabilities=Capabilities(
            synced_canaries=True,
            max_connected_clusters=settings.max_clusters,
            service_exports_enabled=settings.mcs_api,
            endpoint_slices_export_mode=settings.slices.value,
        ),
    )
