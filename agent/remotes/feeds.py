"""What is read from a cluster's etcd: one feed per kind, chosen by what its config says."""

from collections.abc import Callable
from typing import Final

import msgspec

from agent.facts import AnyFact, AnyKind, LocalKind, Me
from clustermesh import keys, local
from clustermesh.keys import Kind, Layout, Origin
from clustermesh.model import ClusterConfig

SLICES_ONLY: Final = "endpointslices-only"


class Feed(msgspec.Struct, frozen=True):
    """A prefix of facts of one kind.

    ``canary`` is the key that says the producer has written all of them, empty when there is none
    to wait for. ``decode`` takes the key as it is in etcd, and the
    value; it raises ``BadFact``.
    """

    kind: AnyKind
    prefix: str
    canary: str
    decode: Callable[[str, bytes], AnyFact]


def of_remote(cluster: str, config: ClusterConfig, *, max_clusters: int) -> tuple[Feed, ...]:
    """The feeds of a remote cluster (contract kvstore 1 and 4)."""
    layout = Layout.CACHE if config.capabilities.cached else Layout.STATE
    origin = Origin(cluster, config.id, max_clusters, layout)
    return tuple(
        _feed(kind, origin, wait=config.capabilities.synced_canaries) for kind in _kinds(config)
    )


def of_own(me: Me) -> tuple[Feed, ...]:
    """The feeds of the own cluster: the shared tree, and services from the private one."""
    origin = Origin(me.cluster, me.cluster_id, me.max_clusters, Layout.STATE)
    shared = (_feed(kind, origin, wait=True) for kind in (Kind.NODES, Kind.IDENTITIES, Kind.IPS))
    services = Feed(
        kind=LocalKind.SERVICES,
        prefix=local.SERVICES_PREFIX,
        canary=local.SYNCED,
        decode=local.decode,
    )
    return (*shared, services)


def _kinds(config: ClusterConfig) -> tuple[Kind, ...]:
    """JSON services are preferred; EndpointSlices are read only from a peer with nothing else."""
    only_slices = config.capabilities.endpoint_slices_export_mode == SLICES_ONLY
    services = Kind.ENDPOINT_SLICES if only_slices else Kind.SERVICES
    exports = config.capabilities.service_exports_enabled
    more = () if exports is None else (Kind.SERVICE_EXPORTS,)
    return (Kind.NODES, Kind.IDENTITIES, services, Kind.IPS, *more)


def _feed(kind: Kind, origin: Origin, *, wait: bool) -> Feed:
    return Feed(
        kind=kind,
        prefix=keys.prefix(kind, origin.layout, origin.cluster),
        canary=keys.canary(kind, origin.layout, origin.cluster) if wait else "",
        decode=keys.decoder(kind, origin),
    )
