"""kvstoremesh: the parts of the cache tier put together."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec

from clustermesh import http, logs, process
from clustermesh.apiserver import guard, metrics, start
from clustermesh.apiserver.measured import Measured
from clustermesh.health import Board, Condition
from clustermesh.kvstoremesh import dialect, show
from clustermesh.kvstoremesh.holding import Sizes
from clustermesh.kvstoremesh.leader import Fenced, Leadership
from clustermesh.kvstoremesh.metrics import PREFIX, State
from clustermesh.kvstoremesh.remote import Tuning
from clustermesh.kvstoremesh.remotes import Places, Remotes
from clustermesh.kvstoremesh.report import Report
from clustermesh.kvstoremesh.settings import SUMMARY, Settings
from clustermesh.kvstoremesh.validate import validate
from clustermesh.logs import get_logger
from clustermesh.process import Fault
from clustermesh.remotes.session import Waits
from clustermesh.settings import load
from clustermesh.version import VERSION
from kvstore.client import Denied, Store, Unavailable
from kvstore.config import EtcdConfig
from kvstore.etcd import EtcdStore, open_etcd
from kvstore.watch import FollowSettings

PROGRAM = "kvstoremesh"
COPIES = "copies"

log = get_logger()


def main() -> None:
    """The console script."""
    if sys.argv[1:2] == [show.COMMAND]:
        sys.exit(show.main(sys.argv[2:]))
    sys.exit(process.run(lambda: run(sys.argv[1:]), program=PROGRAM))


async def run(argv: Sequence[str]) -> None:
    """Everything, until cancelled. Raises ``Fault`` and ``SettingsError``."""
    ours, unused = dialect.translated(argv)
    settings = load(Settings, ours, program=PROGRAM, summary=SUMMARY)
    with logs.running(level=settings.log_level, form=settings.log_format) as control:
        if settings.validate:
            await validate(settings)
            return
        config = start.etcd_config(settings)
        log.info("starting", cluster=settings.cluster_name, version=VERSION)
        if unused:
            log.info("flags without a meaning here", flags=unused)
        board = Board(told=_tell)
        board.require("etcd")
        with http.listening(socket=settings.api_socket, listen=settings.listens) as sockets:
            async with (
                open_etcd(config, report=board.reporter("etcd")) as store,
                asyncio.TaskGroup() as tasks,
            ):
                mesh = Kvstoremesh(settings, config, store, board)
                tasks.create_task(http.serve(mesh.surface(control), sockets), name="http")
                await mesh.run()


class Kvstoremesh:
    """One replica: waits until it leads, then copies."""

    def __init__(
        self, settings: Settings, config: EtcdConfig, store: EtcdStore, board: Board
    ) -> None:
        self._settings = settings
        self._config = config
        self._store = store
        self._board = board
        self._registry = metrics.registry()
        self._measured = Measured(store, self._registry, prefix=PREFIX)
        self._report = Report(settings, board, etcd=store, measured=self._measured)
        self._registry.register(State(self._report.reading))
        self._leadership = Leadership(
            store, name=settings.replica_name, ttl=settings.leader_ttl, told=self._told
        )
        self._report.leads = lambda: self._leadership.leads
        board.require_once(COPIES)

    def surface(self, control: logs.Control) -> http.Surface:
        """What it shows over HTTP."""
        return http.Surface(
            title=PROGRAM,
            board=self._board,
            log=control,
            status=self._report.status,
            registry=self._registry,
            reads={"/v1/cluster": lambda _: self._report.clusters()},
            actions={"/v1/reach": _reach},
        )

    async def run(self) -> None:
        """Take hold of the etcd, then copy whenever it is our turn; for ever. Raises ``Fault``."""
        await start.connect(self._store, self._config, timeout=self._settings.start_timeout)
        await check_own(self._store, self._settings)
        await self._leadership.lead(self._copy)

    async def _copy(self) -> None:
        remotes = Remotes(
            Places(
                directory=self._settings.clustermesh_config,
                scan_interval=self._settings.scan_interval,
            ),
            me=self._settings,
            cache=Fenced(self._measured, self._leadership),
            opener=self._open,
            tuning=tuning(self._settings),
            report=self._board.reporter("configuration"),
        )
        self._report.remotes, self._report.sentences = remotes.each, remotes.trouble
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._settle(remotes), name="readiness")
            await remotes.run()

    async def _settle(self, remotes: Remotes) -> None:
        """Ready when what can be copied has been."""
        await remotes.settled.wait()
        for remote in remotes.each():
            await remote.holding.publisher.flushed()
        self._store.bootstrapped()
        self._report.first_sync_done()
        self._board.ok(COPIES)
        log.info("first synchronisation done")

    @asynccontextmanager
    async def _open(self, config: EtcdConfig) -> AsyncIterator[Store]:
        async with open_etcd(msgspec.structs.replace(config, qps=self._settings.etcd_qps)) as store:
            yield store

    def _told(self, role: str) -> None:
        self._report.role = role
        if not self._leadership.leads and role != "leading":
            self._report.remotes, self._report.sentences = (lambda: ()), (lambda: ())
            self._board.ok(COPIES)  # whoever leads has them


def tuning(settings: Settings) -> Tuning:
    """What the settings say of each remote cluster."""
    return Tuning(
        waits=Waits(
            handshake=settings.handshake_timeout,
            config=settings.config_recheck,
            ceiling=settings.reconnect_ceiling,
            heartbeat=settings.heartbeat_limit,
            follow=FollowSettings(ceiling=settings.reconnect_ceiling, doubt=settings.doubt),
            connect=settings.per_cluster_ready_timeout,
            sync=settings.global_ready_timeout,
            cache=settings.clustermesh_cache_ttl,
        ),
        sizes=Sizes(lease_ttl=settings.lease_ttl, max_keys=settings.max_keys_per_kind),
        drain=settings.drain_on_removal,
        drain_wait=settings.drain_wait,
        drain_retry=settings.drain_retry,
    )


async def check_own(store: EtcdStore, settings: Settings) -> None:
    """Make sure that the etcd is the own cluster's. Raises ``Fault``."""
    while True:
        met = store.connections
        try:
            await guard.check_ownership(
                store,
                cluster=settings.cluster_name,
                cluster_id=settings.cluster_id,
                replace_id=False,
            )
        except Unavailable:
            await store.connected(beyond=met)
        except Denied as error:
            raise Fault(
                f"etcd lets our certificate read too little ({error}): cert-file in --etcd-config "
                f"must be that of admin-{settings.cluster_name}"
            ) from None
        else:
            return


def _tell(condition: Condition) -> None:
    if condition.ok:
        log.info("well", what=condition.name)
    else:
        log.warning("not well", what=condition.name, reason=condition.reason)


async def _reach(query: http.Query) -> object:
    """Whether the etcds of a cluster that is not copied yet can be reached from here."""
    from clustermesh.remotes import way  # brings cryptography along: needed when it is asked

    return await way.reach(query)


if __name__ == "__main__":
    main()
