"""The order of the first synchronisation: configuration, data, canaries; leftovers go last."""

import time
from collections.abc import Callable

from clustermesh import propagation
from clustermesh.apiserver.announce import Announcement
from clustermesh.apiserver.moment import stamp
from clustermesh.apiserver.publication import Publication
from clustermesh.export import ExportSettings, SliceExport
from clustermesh.health import Board
from clustermesh.keys import Kind, Layout, canaries_prefix, canary, cluster_config, prefix
from clustermesh.local import SERVICES_PREFIX, SYNCED
from clustermesh.logs import get_logger
from kvstore.publish import Publisher

log = get_logger()
CONDITION = "publication"


def kinds(settings: ExportSettings) -> tuple[Kind, ...]:
    """The kinds whose canaries are written; serviceexports even when they are off (12.keys)."""
    always = (Kind.NODES, Kind.IDENTITIES, Kind.IPS, Kind.SERVICES, Kind.SERVICE_EXPORTS)
    slices = settings.slices is not SliceExport.SERVICES_ONLY
    return (*always, Kind.ENDPOINT_SLICES) if slices else always


def canaries(settings: ExportSettings) -> tuple[str, ...]:
    """The keys that tell readers that the first synchronisation is over."""
    cluster = settings.cluster
    return (*(canary(kind, Layout.STATE, cluster) for kind in kinds(settings)), SYNCED)


def signs(settings: ExportSettings) -> tuple[str, ...]:
    """What speaks for everything else: it has to end first when this process dies, or its readers
    take what is left of the data for all there is."""
    cluster = settings.cluster
    return (cluster_config(cluster), canaries_prefix(cluster), SYNCED)


def owned(settings: ExportSettings) -> tuple[str, ...]:
    """The prefixes in which nobody else writes: what we do not want there is a leftover."""
    cluster = settings.cluster
    facts = (prefix(kind, Layout.STATE, cluster) for kind in Kind)
    return (*facts, propagation.prefix(Layout.STATE, cluster), SERVICES_PREFIX)


async def first_sync(
    publication: Publication,
    publisher: Publisher,
    announcement: Announcement,
    settings: ExportSettings,
    board: Board,
    now: Callable[[], float] = time.time,
) -> None:
    """Contract kvstore 5.3 and 10. Returns when everything is in etcd."""
    announcement.write()
    await publisher.flushed()
    await publication.alive()
    await publisher.flushed()
    value = stamp(now())
    for key in canaries(settings):
        publisher.synced(key, value)
    await publisher.flushed()
    board.ok(CONDITION)
    log.info("first synchronisation done")


async def tidy(publication: Publication, publisher: Publisher, settings: ExportSettings) -> None:
    """Remove what an earlier life left behind.

    It goes last, when everything that exists has been put again under our own leases: nothing that
    still exists is ever deleted (contract kvstore, trap 28).
    """
    await publication.alive()
    swept = await publisher.sweep(owned(settings))
    if swept:
        log.info("leftovers of an earlier life removed", keys=swept)
