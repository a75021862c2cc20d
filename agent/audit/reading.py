"""The etcds, read once and in full: facts, and the revision at which each list was true."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from clustermesh import keys, local
from clustermesh.checks import BadFact
from clustermesh.keys import Kind, Layout, Origin
from clustermesh.local import LocalService
from clustermesh.model import ClusterService, EndpointSlice, IPEntry, Node
from kvstore.client import Reader
from kvstore.events import shown

Fact = TypeVar("Fact")

OWN_SERVICES: Final = "local services"
SLICES_ONLY: Final = "endpointslices-only"


class Unreadable(Exception):
    """A cluster cannot be audited; the text is a sentence."""


class Told(msgspec.Struct, kw_only=True):
    """What one cluster says, by the last part of each key."""

    cluster: str
    cluster_id: int
    nodes: dict[str, Node] = {}
    addresses: dict[str, IPEntry] = {}
    offers: dict[str, ClusterService] = {}
    slices: dict[str, EndpointSlice] = {}
    services: dict[str, LocalService] = {}
    """Only of the own cluster, which tells more of its services."""
    revisions: dict[str, int] = {}
    bad: dict[tuple[str, str], str] = {}
    """By kind and key: values that cannot be read, and why. An agent keeps what it had."""


async def read_own(store: Reader, cluster: str, cluster_id: int, max_clusters: int) -> Told:
    """The own cluster: nodes and addresses as everybody sees them, services in full."""
    told = Told(cluster=cluster, cluster_id=cluster_id)
    origin = Origin(cluster, cluster_id, max_clusters)
    told.nodes = await _facts(store, told, Kind.NODES, origin)
    told.addresses = await _facts(store, told, Kind.IPS, origin)
    told.services = await _read(store, told, OWN_SERVICES, local.SERVICES_PREFIX, local.decode)
    return told


async def read_remote(store: Reader, cluster: str, max_clusters: int) -> Told:
    """A remote cluster, in the layout and the format of services that its config names."""
    entry = await store.get(keys.cluster_config(cluster))
    if entry is None:
        raise Unreadable(f"{cluster} has no cluster-config")
    try:
        config = keys.decode_config(entry.value)
    except BadFact as error:
        raise Unreadable(f"cluster-config of {cluster}: {error}") from None
    layout = Layout.CACHE if config.capabilities.cached else Layout.STATE
    told = Told(cluster=cluster, cluster_id=config.id)
    told.revisions["cluster-config"] = int(entry.revision)
    origin = Origin(cluster, config.id, max_clusters, layout)
    told.nodes = await _facts(store, told, Kind.NODES, origin)
    told.addresses = await _facts(store, told, Kind.IPS, origin)
    if config.capabilities.endpoint_slices_export_mode == SLICES_ONLY:
        told.slices = await _facts(store, told, Kind.ENDPOINT_SLICES, origin)
    else:
        told.offers = await _facts(store, told, Kind.SERVICES, origin)
    return told


async def _facts(store: Reader, told: Told, kind: Kind, origin: Origin) -> dict[str, Any]:
    place = keys.prefix(kind, origin.layout, origin.cluster)
    return await _read(store, told, str(kind), place, keys.decoder(kind, origin))


async def _read(
    store: Reader, told: Told, what: str, place: str, decode: Callable[[str, bytes], Fact]
) -> dict[str, Fact]:
    """One list, pinned to one revision; every page is a turn of the loop."""
    found: dict[str, Fact] = {}
    async for page in store.pages(place):
        told.revisions[what] = int(page.revision)
        for entry in page.entries:
            name = entry.key.removeprefix(place)
            try:
                found[name] = decode(entry.key, entry.value)
            except BadFact as error:
                told.bad[what, shown(name)] = str(error)
    return found
