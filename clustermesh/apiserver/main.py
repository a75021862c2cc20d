"""clustermesh-apiserver: the parts of the control plane put together."""

import asyncio
import sys
from collections.abc import Sequence

from prometheus_client import CollectorRegistry

from clustermesh import http, logs, process
from clustermesh.apiserver import metrics, order, start
from clustermesh.apiserver.access import Access
from clustermesh.apiserver.announce import Announcement
from clustermesh.apiserver.heartbeat import Heart
from clustermesh.apiserver.measured import Measured
from clustermesh.apiserver.numbering import FileNumbers
from clustermesh.apiserver.publication import Publication
from clustermesh.apiserver.report import Report
from clustermesh.apiserver.settings import SUMMARY, Settings
from clustermesh.apiserver.sources import Supply, opened
from clustermesh.apiserver.validate import validate
from clustermesh.export import Exporter, Flavour, cluster_config
from clustermesh.gojson import encode
from clustermesh.health import Board
from clustermesh.settings import load
from clustermesh.version import VERSION
from kvstore.config import EtcdConfig
from kvstore.etcd import EtcdStore, open_etcd
from kvstore.publish import Publisher, PublishSettings

PROGRAM = "clustermesh-apiserver"


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
        log = logs.get_logger()
        log.info("starting", cluster=settings.cluster_name, version=VERSION)
        board = Board()
        board.require("etcd")
        with http.listening(socket=settings.api_socket, listen=settings.api_listen) as sockets:
            async with (
                open_etcd(config, report=board.reporter("etcd")) as store,
                opened(settings, board.reporter("source")) as supply,
            ):
                apiserver = Apiserver(settings, config, store, supply, board)
                surface = apiserver.surface(control)
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(http.serve(surface, sockets), name="http")
                    await apiserver.serve(tasks)


class Apiserver:
    """One cluster's control plane: builds the parts, starts their tasks in order."""

    def __init__(
        self,
        settings: Settings,
        config: EtcdConfig,
        store: EtcdStore,
        supply: Supply,
        board: Board,
    ) -> None:
        self._settings = settings
        self._config = config
        self._store = store
        self._supply = supply
        self._board = board
        self._registry: CollectorRegistry = metrics.registry()
        board.require_once(order.CONDITION)

        numbers = self._numbers()
        exporter = Exporter(supply.export, numbers)
        if numbers is not None:
            numbers.allocator.in_use = exporter.has_identity
        measured = Measured(store, self._registry)
        self._publisher = Publisher(
            measured,
            PublishSettings(lease_ttl=settings.lease_ttl),
            report=board.reporter("publisher"),
        )
        self._publication = Publication(
            exporter, self._publisher, board, kinds=supply.source.kinds, recorder=numbers
        )
        self._heart = Heart(self._publisher, interval=settings.heartbeat_interval)
        self._announcement = Announcement(
            self._publisher,
            cluster=settings.cluster_name,
            value=encode(cluster_config(supply.export)),
            report=board.reporter("cluster-config"),
        )
        self._access = Access(
            config,
            cluster=settings.cluster_name,
            users_file=settings.cluster_users_config_path,
            board=board,
        )
        self._report = Report(
            settings,
            board,
            self._publication,
            self._heart,
            source=supply.name,
            objects=exporter,
            etcd=store,
            queued=self._publisher.queued,
            measured=measured,
            kinds=order.kinds(supply.export),
        )
        self._registry.register(metrics.State(self._report.reading))

    def surface(self, control: logs.Control) -> http.Surface:
        """What it shows over HTTP."""
        return http.Surface(
            title=PROGRAM,
            board=self._board,
            log=control,
            status=self._report.status,
            registry=self._registry,
        )

    async def serve(self, tasks: asyncio.TaskGroup) -> None:
        """Take hold of the etcd, then start everything and publish. Raises ``Fault``."""
        store, settings = self._store, self._settings
        await start.connect(store, self._config, timeout=settings.start_timeout)
        await start.own(store, settings)
        await self._access.ensure()
        tasks.create_task(self._access.follow_connections(store), name="etcd users")
        tasks.create_task(
            self._access.follow_file(recheck=settings.cluster_users_recheck), name="users file"
        )
        tasks.create_task(self._publisher.run(), name="publisher")
        tasks.create_task(self._publication.run(), name="publication")
        tasks.create_task(self._supply.source.run(self._publication), name="source")
        await order.first_sync(
            self._publication,
            self._publisher,
            self._announcement,
            self._supply.export,
            self._board,
        )
        self._report.first_sync_done()
        store.bootstrapped()
        tasks.create_task(self._heart.run(self._publication.alive), name="heartbeat")
        tasks.create_task(self._announcement.watch(store), name="cluster-config")
        tasks.create_task(
            self._announcement.recheck(store, every=settings.config_recheck),
            name="cluster-config recheck",
        )

    def _numbers(self) -> FileNumbers | None:
        if self._supply.export.flavour is Flavour.CILIUM:
            return None
        return FileNumbers(
            self._settings.state_dir,
            cluster_id=self._settings.cluster_id,
            max_clusters=self._settings.max_connected_clusters,
        )


if __name__ == "__main__":
    main()
