"""clustermesh-apiserver: the parts of the control plane put together."""

import asyncio
import gc
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from prometheus_client import CollectorRegistry

from clustermesh import http, logs, process
from clustermesh.apiserver import joining, metrics, order, shelf, start
from clustermesh.apiserver.access import Access
from clustermesh.apiserver.announce import Announcement
from clustermesh.apiserver.beacon import Beacon
from clustermesh.apiserver.certificates import Certificates
from clustermesh.apiserver.heard import Heard
from clustermesh.apiserver.heartbeat import Heart
from clustermesh.apiserver.imports import ImportSide
from clustermesh.apiserver.joining import Joining
from clustermesh.apiserver.measured import Measured
from clustermesh.apiserver.numbering import FileNumbers
from clustermesh.apiserver.publication import Publication
from clustermesh.apiserver.report import Report
from clustermesh.apiserver.settings import SUMMARY, Settings
from clustermesh.apiserver.sources import Supply, opened
from clustermesh.apiserver.validate import validate
from clustermesh.export import Exporter, cluster_config
from clustermesh.gojson import encode
from clustermesh.health import Board, Condition
from clustermesh.logs import get_logger
from clustermesh.settings import load
from clustermesh.sources.objects import ObjectKind
from clustermesh.status import ApiserverStatus
from clustermesh.version import VERSION
from kvstore.config import EtcdConfig
from kvstore.etcd import EtcdStore, open_etcd
from kvstore.publish import Publisher, PublishSettings

PROGRAM = "clustermesh-apiserver"
SOURCE = "source"

log = get_logger()


def main() -> None:
    """The console script."""
    sys.exit(process.run(lambda: run(sys.argv[1:]), program=PROGRAM))


async def run(argv: Sequence[str]) -> None:
    """Everything, until cancelled. Raises ``Fault`` and ``SettingsError``."""
    settings = load(Settings, argv, program=PROGRAM, summary=SUMMARY)
    with logs.running(level=settings.log_level, form=settings.log_format) as control:
        if settings.validate:
            await validate(settings)
            return
        config = start.etcd_config(settings)
        log.info("starting", cluster=settings.cluster_name, version=VERSION)
        board = Board(told=_tell)
        board.require("etcd")
        with (
            http.listening(socket=settings.api_socket, listen=settings.api_listen) as sockets,
            joining.listening(settings) as guests,
        ):
            async with (
                open_etcd(config, report=board.reporter("etcd")) as store,
                asyncio.TaskGroup() as tasks,
            ):
                apiserver = Apiserver(settings, config, store, board)
                surface = apiserver.surface(control)
                tasks.create_task(http.serve(surface, sockets), name="http")
                tasks.create_task(apiserver.joining.serve(guests), name="joining")
                await apiserver.run()


class _Parts(NamedTuple):
    """What publishes one source's objects."""

    exporter: Exporter
    publisher: Publisher
    publication: Publication
    heart: Heart
    announcement: Announcement
    importing: ImportSide | None


class Apiserver:
    """One cluster's control plane: builds the parts and starts their tasks in order."""

    def __init__(
        self, settings: Settings, config: EtcdConfig, store: EtcdStore, board: Board
    ) -> None:
        self._settings = settings
        self._config = config
        self._store = store
        self._board = board
        self._registry: CollectorRegistry = metrics.registry()
        self._measured = Measured(store, self._registry)
        self._heard = Heard(store, self._registry)
        self._access = Access(
            config,
            cluster=settings.cluster_name,
            users_file=settings.cluster_users_config_path,
            board=board,
        )
        self._certificates = Certificates(settings, config)
        self.joining = Joining(settings, board.reporter("joining"))
        self._started = time.time()
        self._report: Report | None = None
        board.require_once(order.CONDITION)

    def surface(self, control: logs.Control) -> http.Surface:
        """What it shows over HTTP."""
        return http.Surface(
            title=PROGRAM,
            board=self._board,
            log=control,
            status=self._status,
            registry=self._registry,
            actions={
                "/v1/trust/probe": self._certificates.probe,
                **self.joining.actions(),
                **shelf.reads(self._store),
            },
        )

    async def run(self) -> None:
        """Take hold of the etcd, then of the source, and publish; for ever. Raises ``Fault``."""
        store, settings = self._store, self._settings
        await start.connect(store, self._config, timeout=settings.start_timeout)
        await start.own(store, settings)
        await self._access.ensure()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._access.follow_connections(store), name="etcd users")
            tasks.create_task(self._certificates.watch(), name="certificates")
            tasks.create_task(
                self._access.follow_file(recheck=settings.cluster_users_recheck), name="users file"
            )
            async with opened(settings, self._board.reporter(SOURCE)) as supply:
                self._board.drop(SOURCE)
                await self._publish(supply)

    async def _publish(self, supply: Supply) -> None:
        parts = self._parts(supply)
        self._report = report = self._reporting(supply, parts)
        self._registry.register(metrics.State(report.reading))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(parts.publisher.run(), name="publisher")
            tasks.create_task(parts.publication.run(), name="publication")
            tasks.create_task(parts.publication.review(), name="refusals")
            sink = parts.importing.sink if parts.importing else parts.publication
            tasks.create_task(supply.source.run(sink), name="source")
            if parts.importing:
                tasks.create_task(parts.importing.run(), name="imports")
            await order.first_sync(
                parts.publication, parts.publisher, parts.announcement, supply.export, self._board
            )
            report.first_sync_done()
            self._store.bootstrapped()
            tasks.create_task(self._tidy(parts, supply), name="tidy")
            gc.freeze()  # what is held now stays for long: never to be searched for garbage
            self._start_the_rest(tasks, parts)

    def _start_the_rest(self, tasks: asyncio.TaskGroup, parts: _Parts) -> None:
        """What peers may see only of a cluster that has published its first lists."""
        alive, interval = parts.publication.alive, self._settings.propagation_interval
        tasks.create_task(parts.heart.run(alive), name="heartbeat")
        if interval:
            beacon = Beacon(parts.publisher, cluster=self._settings.cluster_name, interval=interval)
            tasks.create_task(beacon.run(alive), name="propagation probe")
        tasks.create_task(parts.announcement.watch(self._heard), name="cluster-config")
        tasks.create_task(
            parts.announcement.recheck(self._store, every=self._settings.config_recheck),
            name="cluster-config recheck",
        )

    def _parts(self, supply: Supply) -> _Parts:
        settings, board = self._settings, self._board
        numbers = supply.numbering() if supply.numbering else None
        exporter = Exporter(supply.export, numbers)
        publisher = Publisher(
            self._measured,
            PublishSettings(lease_ttl=settings.lease_ttl, signs=order.signs(supply.export)),
            report=board.reporter("publisher"),
        )
        publication = Publication(
            exporter,
            publisher,
            board,
            kinds=supply.source.kinds - {ObjectKind.SERVICE_IMPORT},
            recorder=numbers if isinstance(numbers, FileNumbers) else None,
        )
        if numbers is not None:
            numbers.in_use = exporter.has_identity
            numbers.decided = publication.decided
        importing = None
        if supply.imports:
            importing = ImportSide(settings, exporter.picture, publication, supply.imports, board)
        announcement = Announcement(
            publisher,
            cluster=settings.cluster_name,
            value=encode(cluster_config(supply.export)),
            report=board.reporter("cluster-config"),
        )
        heart = Heart(publisher, interval=settings.heartbeat_interval)
        return _Parts(exporter, publisher, publication, heart, announcement, importing)

    def _reporting(self, supply: Supply, parts: _Parts) -> Report:
        return Report(
            self._settings,
            self._board,
            parts.publication,
            parts.heart,
            source=supply.name,
            objects=parts.exporter,
            etcd=self._store,
            queued=parts.publisher.queued,
            measured=self._measured,
            kinds=order.kinds(supply.export),
            started=self._started,
            imports=parts.importing,
            certificates=self._certificates.read,
            peers=lambda: self._access.peers,
        )

    async def _tidy(self, parts: _Parts, supply: Supply) -> None:
        """What an earlier life imported from a cluster is no leftover before that has spoken."""
        if parts.importing is not None:
            await parts.importing.settled()
        await order.tidy(parts.publication, parts.publisher, supply.export)

    def _status(self) -> ApiserverStatus:
        """GET /v1/status, also before there is anything to report."""
        if self._report is not None:
            return self._report.status()
        return ApiserverStatus(
            cluster=self._settings.cluster_name,
            cluster_id=self._settings.cluster_id,
            version=VERSION,
            ready=False,
            started=self._started,
            source=self._settings.source,
            etcd=self._store.status_text(),
            trouble=self._board.trouble(),
            certificates=self._certificates.read(),
        )


def _tell(condition: Condition) -> None:
    if condition.ok:
        log.info("well", what=condition.name)
    else:
        log.warning("degraded", what=condition.name, reason=condition.reason)


if __name__ == "__main__":
    main()
