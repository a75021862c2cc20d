"""One remote cluster and its copy, from the day its file appears until the copy is gone."""

import asyncio
from functools import partial

import msgspec
import structlog

from clustermesh.kvstoremesh import places
from clustermesh.kvstoremesh.copy import Copy
from clustermesh.kvstoremesh.drain import clear, insist
from clustermesh.kvstoremesh.holding import Holding, Sizes
from clustermesh.kvstoremesh.places import Route
from clustermesh.local import AnyKind
from clustermesh.model import ClusterConfig
from clustermesh.remotes import handshake
from clustermesh.remotes.directory import RemoteFile
from clustermesh.remotes.gate import Held
from clustermesh.remotes.handshake import Ids, Me
from clustermesh.remotes.progress import Progress
from clustermesh.remotes.session import Follow, Opener, Role, Session, Waits
from clustermesh.remotes.supervision import keep_connected
from clustermesh.status import RemoteStatus
from kvstore.backoff import Backoff
from kvstore.client import Reader, Store
from kvstore.events import Put
from kvstore.watch import ending, follow

log = structlog.get_logger()


class Tuning(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator may set of every remote cluster; waits in seconds."""

    waits: Waits = Waits(connect=15.0, sync=600.0)
    sizes: Sizes = Sizes()
    drain: bool = True
    drain_wait: float = 180.0
    drain_retry: float = 2.0


class Remote:
    """``run`` is the one task that owns everything which the cache holds of one cluster.

    Only the removal of its file takes the copy away, neither an outage nor the end of this process.
    """

    def __init__(
        self, cluster: str, *, me: Me, ids: Ids, cache: Store, opener: Opener, tuning: Tuning
    ) -> None:
        self.cluster = cluster
        self.progress = Progress(cluster)
        self._me = me
        self._ids = ids
        self._cache = cache
        self._opener = opener
        self._tuning = tuning
        self._waits = tuning.waits
        self._wanted: RemoteFile | None = None
        self._changed = asyncio.Event()
        self._session: Session | None = None
        self.holding = self._empty()

    def _empty(self) -> Holding:
        report = partial(self.progress.note, "cache")
        return Holding(self.cluster, self._cache, self._tuning.sizes, report=report)

    # -- asked by the owner of the directory ----------------------------------------------------

    def configure(self, file: RemoteFile | None) -> None:
        """This is the cluster's file now; None: it is gone. The last call counts."""
        running = self._wanted
        if file is not None and file.config is None and running is not None and running.config:
            self.progress.note("file", f"{file.problem}; the earlier content stays in use")
            return
        self.progress.note("file", None)
        if running is None or file is None or file.digest != running.digest:
            self._wanted = file
            self._changed.set()

    @property
    def removed(self) -> bool:
        """Whether its file is gone."""
        return self._wanted is None

    # -- asked by those who report --------------------------------------------------------------

    def count(self, _cluster: str, kind: AnyKind) -> int:
        """How many keys of a kind the copy should have."""
        copies = {str(of): copy for of, copy in self.holding.copies.items()}
        return len(copies[kind].known) if kind in copies else 0

    def status(self) -> RemoteStatus:
        """What the operator sees of it."""
        strangers = sum(copy.strangers for copy in self.holding.copies.values())
        return msgspec.structs.replace(
            self.progress.status(self.count, self._session),
            refused_values=strangers + len(self.holding.publisher.refused),
        )

    # -- its life -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Copy until the file is gone, then drain; begin again when it has come back meanwhile."""
        while True:
            await self._copy()
            if self._tuning.drain:
                backoff = self._insistence()
                report = partial(self.progress.note, "cache")
                await clear(self._cache, self.cluster, backoff=backoff, report=report)
                log.info("copy removed", cluster=self.cluster)
            self.progress.note("drain", None)
            self._ids.release(self.cluster)
            if self.removed:
                return
            self.holding = self._empty()

    async def _copy(self) -> None:
        """Adopt, copy while configured, withdraw."""
        async with asyncio.TaskGroup() as tasks:
            helpers = [
                tasks.create_task(self.holding.run()),
                tasks.create_task(self._grace()),
                tasks.create_task(self._let_go_in_time()),
            ]
            await self._adopt()
            while (file := self._wanted) is not None:
                self._changed.clear()
                await self._until_changed(file)
            self.progress.settled.set()
            if self._tuning.drain:
                await self._withdraw()
            for helper in helpers:
                helper.cancel()

    async def _adopt(self) -> None:
        await insist(
            self._cache,
            lambda: self.holding.adopt(leaving=self.removed),
            backoff=self._insistence(),
            report=partial(self.progress.note, "cache"),
        )
        if self.holding.cluster_id:
            try:
                self._ids.reserve(self.cluster, self.holding.cluster_id)
            except handshake.Refused as error:
                log.warning("copy of an earlier run", cluster=self.cluster, reason=str(error))

    async def _withdraw(self) -> None:
        wait = self._tuning.drain_wait
        self.progress.note("drain", f"its file is gone; its copy goes {wait:g} s after its config")
        await self.holding.withdraw()
        await asyncio.sleep(wait)

    async def _grace(self) -> None:
        """Nobody waits for ever for its first lists, nor long when it does not even answer."""
        waits = self._waits
        await asyncio.sleep(min(waits.connect, waits.sync))
        if self.progress.connected:
            await asyncio.sleep(max(0.0, waits.sync - waits.connect))
        if not self.progress.settled.is_set():
            log.warning("cluster not synced in time", cluster=self.cluster)
            self.progress.settled.set()

    async def _let_go_in_time(self) -> None:
        """A cluster that stays away too long takes its services along, if so configured."""
        while self._waits.cache:
            await asyncio.sleep(self._waits.cache / 10)
            copies = [self.holding.copies[kind] for kind in places.SERVICE_KINDS]
            if any(copy.known for copy in copies) and self.progress.away_for > self._waits.cache:
                log.warning("services of an absent cluster let go", cluster=self.cluster)
                self.progress.revocations += 1
                for copy in copies:
                    copy.forget()
                self._changed.set()  # what the present connection has told is not told again

    async def _until_changed(self, file: RemoteFile) -> None:
        async with asyncio.TaskGroup() as tasks:
            life = tasks.create_task(self._live(file))
            await self._changed.wait()
            life.cancel()

    async def _live(self, file: RemoteFile) -> None:
        ceiling = self._waits.ceiling
        await keep_connected(lambda: self._connect(file), self.progress, ceiling=ceiling)

    async def _connect(self, file: RemoteFile) -> None:
        if file.config is None:
            self.progress.trouble("connection", file.problem)
            await asyncio.Event().wait()  # until the file changes
            return
        role = Role(
            judge=self._judge,
            accept=self._accept,
            readers=self._readers,
            listeners=lambda config: (self._relay(config),),
        )
        session = Session(role=role, progress=self.progress, waits=self._waits)
        try:
            async with self._opener(file.config) as store:
                self._session = session
                await session.run(store)
        finally:
            self._session = None
            self.progress.end()

    # -- its sessions ---------------------------------------------------------------------------

    def _judge(self, value: bytes) -> ClusterConfig:
        return handshake.judge(self.cluster, value, self._me)

    def _accept(self, config: ClusterConfig, value: bytes) -> None:
        if self.holding.cluster_id != config.id:
            self._ids.release(self.cluster)
        self._ids.reserve(self.cluster, config.id)
        self.holding.announce(config, value)

    def _readers(self, config: ClusterConfig) -> dict[AnyKind, Follow]:
        return {route.kind: self._reader(route) for route in places.routes(self.cluster, config)}

    def _reader(self, route: Route) -> Follow:
        copy = self.holding.copies[route.kind]

        async def run(store: Reader, gate: Held) -> None:
            await self._follow(store, gate, route, copy)

        return run

    async def _follow(self, store: Reader, gate: Held, route: Route, copy: Copy) -> None:
        progress = self.progress

        def synced() -> None:
            self.holding.complete(route.kind)
            progress.synced(route.kind)

        def report(sentence: str | None) -> None:
            waiting = sentence is not None and bool(route.awaited) and route.awaited in sentence
            progress.awaiting(route.kind, sentence if waiting else None)
            progress.trouble(route.kind, None if waiting else sentence)

        copy.begin()
        story = follow(
            store,
            route.source,
            gate=gate,
            canary=route.awaited or None,
            settings=self._waits.follow,
            report=report,
        )
        async with ending(story) as slices:
            async for events in slices:
                progress.news()
                copy.take(route, events, synced)

    def _relay(self, config: ClusterConfig) -> Follow:
        """What copies the propagation probe, so that it is timed all the way."""
        source, target = places.probe(self.cluster, config)

        async def run(store: Reader, _: Held) -> None:
            story = follow(store, source, settings=self._waits.follow)
            async with ending(story) as slices:
                async for events in slices:
                    for event in events:
                        if isinstance(event, Put):
                            self.holding.publisher.put(target, event.value)

        return run

    def _insistence(self) -> Backoff:
        return Backoff(first=self._tuning.drain_retry)
