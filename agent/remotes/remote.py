"""One remote cluster from the day its file appears until it is drained, one task long."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Final

import structlog

from agent.checkpoint import ClusterRecord, Saved
from agent.facts import AnyFact, AnyKind, Change, Me, Sink
from agent.remotes import feeds
from agent.remotes.lane import CHUNK, Lane
from agent.remotes.listening import Listen, silence
from agent.remotes.lookup import look_up
from agent.remotes.reader import readers
from clustermesh import keys
from clustermesh.checks import BadFact
from clustermesh.keys import Kind, Layout, Origin
from clustermesh.model import ClusterConfig
from clustermesh.remotes import handshake
from clustermesh.remotes.directory import RemoteFile
from clustermesh.remotes.handshake import Ids
from clustermesh.remotes.progress import Counts, Progress
from clustermesh.remotes.session import Follow, Opener, Role, Session, Waits
from clustermesh.remotes.supervision import keep_connected
from clustermesh.status import RemoteStatus

log = structlog.get_logger()

SERVICE_KINDS: Final[frozenset[AnyKind]] = frozenset({Kind.SERVICES, Kind.ENDPOINT_SLICES})


class Remote:
    """A remote cluster. Outage keeps its facts; only removal and a new id let go of them."""

    def __init__(
        self,
        cluster: str,
        *,
        me: Me,
        sink: Sink,
        ids: Ids,
        record: ClusterRecord,
        opener: Opener,
        waits: Waits,
        listen: Listen = silence,
        lane: Lane | None = None,
        crowd: Callable[[], int] = lambda: 1,
    ) -> None:
        self.cluster = cluster
        self.progress = Progress(cluster)
        self._me = me
        self._sink = sink
        self._ids = ids
        self._record = record
        self._opener = opener
        self._waits = waits
        self._listen = listen
        self._lane = lane or Lane()
        self._crowd = crowd
        self._wanted: RemoteFile | None = None
        self._changed = asyncio.Event()
        self._session: Session | None = None
        self._id = 0
        self._kinds: frozenset[AnyKind] = frozenset()
        self._saved: Saved | None = None

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

    def restore(self, saved: Saved) -> None:
        """Begin with what an earlier run knew, before anything is asked of the peer."""
        self._saved = saved

    @property
    def removed(self) -> bool:
        """Whether its file is gone."""
        return self._wanted is None

    async def _remember(self, saved: Saved) -> None:
        try:
            self._ids.reserve(self.cluster, saved.cluster_id)
        except handshake.Refused as error:
            log.warning("checkpoint not used", cluster=self.cluster, reason=str(error))
            return
        self._id = saved.cluster_id
        self._sink.identify(self.cluster, self._id)
        origin = Origin(self.cluster, self._id, self._me.max_clusters, Layout.STATE)
        for kind, facts in saved.facts.items():
            if not isinstance(kind, Kind):
                continue
            decode = keys.decoder(kind, origin)
            prefix = keys.prefix(kind, Layout.STATE, self.cluster)
            names = list(facts)
            for start in range(0, len(names), CHUNK):
                raw = {name: facts[name] for name in names[start : start + CHUNK]}
                await self._lane.take(partial(self._retell, kind, prefix, raw, decode))
        self._kinds = frozenset(saved.facts)
        self._sink.unconfirmed(self.cluster)
        self.progress.unconfirmed = True

    def _retell(
        self,
        kind: AnyKind,
        prefix: str,
        raw: Mapping[str, bytes],
        decode: Callable[[str, bytes], AnyFact],
    ) -> None:
        changes: list[Change] = []
        for name, value in raw.items():
            with suppress(BadFact):  # a release that checks more than the one that wrote it
                changes.append((name, decode(prefix + name, value)))
        self._sink.apply(self.cluster, kind, changes)

    def status(self, counts: Counts) -> RemoteStatus:
        """What the operator sees of it."""
        return self.progress.status(counts, self._session)

    async def fact(self, kind: AnyKind, name: str) -> AnyFact | None:
        """A fact as its etcd has it now, None when that cannot be told."""
        config = self.progress.config
        return await look_up(self._session, self._feeds(config) if config else (), kind, name)

    # -- its life -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live until the file is gone, then drain; the peer is not needed for that."""
        if self._saved is not None:
            saved, self._saved = self._saved, None
            await self._remember(saved)
        async with asyncio.TaskGroup() as tasks:
            helpers = [tasks.create_task(self._grace())]
            if self._waits.cache:
                helpers.append(tasks.create_task(self._let_go_in_time()))
            while (file := self._wanted) is not None:
                self._changed.clear()
                await self._until_changed(file)
                if self._wanted is None:
                    self._drain()
            self.progress.settled.set()
            for helper in helpers:
                helper.cancel()

    async def _grace(self) -> None:
        """Nobody waits for ever for its first lists, nor long when it does not even answer."""
        waits = self._waits
        await asyncio.sleep(min(waits.connect, waits.sync))
        if self.progress.connected:
            await asyncio.sleep(max(0.0, waits.sync - waits.connect))
        if not self.progress.settled.is_set():
            log.warning("cluster not synced in time", cluster=self.cluster)
            self._sink.overdue(self.cluster)
            self.progress.settled.set()

    async def _let_go_in_time(self) -> None:
        """A cluster that stays away too long takes its services along, if so configured.

        Its nodes, addresses and identities stay. When it is back everything is read anew.
        """
        while True:
            await asyncio.sleep(self._waits.cache / 10)
            if self._kinds & SERVICE_KINDS and self.progress.away_for > self._waits.cache:
                log.warning("services of an absent cluster let go", cluster=self.cluster)
                self.progress.revocations += 1
                self._sink.unconfirmed(self.cluster)
                for kind in self._kinds & SERVICE_KINDS:
                    self._empty(kind)
                self._kinds -= SERVICE_KINDS
                self._changed.set()  # what the present connection has told is not told again

    def _empty(self, kind: AnyKind) -> None:
        """As if a full list of the kind had come, with nothing in it."""
        self._sink.synced(self.cluster, kind)
        self._record.listing(kind)
        self._record.listed(kind)

    async def _until_changed(self, file: RemoteFile) -> None:
        async with asyncio.TaskGroup() as tasks:
            life = tasks.create_task(self._live(file))
            await self._changed.wait()
            life.cancel()

    async def _live(self, file: RemoteFile) -> None:
        await keep_connected(
            lambda: self._connect(file), self.progress, ceiling=self._waits.ceiling
        )

    async def _connect(self, file: RemoteFile) -> None:
        if file.config is None:
            self.progress.trouble("connection", file.problem)
            await asyncio.Event().wait()  # until the file changes
            return
        role = Role(
            judge=self._judge,
            accept=self._accept,
            readers=self._readers,
            listeners=lambda config: self._listen(self.cluster, config),
            crowd=self._crowd,
        )
        session = Session(role=role, progress=self.progress, waits=self._waits)
        try:
            async with self._opener(file.config) as store:
                self._session = session
                await session.run(store)
        finally:
            self._session = None
            self.progress.end()
            self._sink.unsynced(self.cluster)

    def _judge(self, value: bytes) -> ClusterConfig:
        return handshake.judge(self.cluster, value, self._me)

    def _feeds(self, config: ClusterConfig) -> tuple[feeds.Feed, ...]:
        return feeds.of_remote(self.cluster, config, max_clusters=self._me.max_clusters)

    def _readers(self, config: ClusterConfig) -> dict[AnyKind, Follow]:
        return readers(
            self._feeds(config),
            sink=self._sink,
            progress=self.progress,
            record=self._record,
            settings=self._waits.follow,
            lane=self._lane,
        )

    def _accept(self, config: ClusterConfig, _: bytes) -> None:
        """Take the cluster under this id; facts of an earlier connection await confirmation."""
        if self._id != config.id:
            if self._id:
                log.warning(
                    "cluster changed its id", cluster=self.cluster, old=self._id, new=config.id
                )
                self._drain()
            self._ids.reserve(self.cluster, config.id)
            self._id = config.id
            self._sink.identify(self.cluster, config.id)
            self._record.begin(config.id)
        elif self._record.lost:
            self._record.begin(config.id)
        kinds = frozenset(feed.kind for feed in self._feeds(config))
        if self._kinds:
            self._sink.unconfirmed(self.cluster)
        # Services that are told in another form now stay until they have all been told in it.
        for kind in self._kinds - kinds - SERVICE_KINDS:  # no longer published
            self._empty(kind)
        self._kinds = kinds

    def _drain(self) -> None:
        log.info("cluster drained", cluster=self.cluster)
        self._sink.drain(self.cluster)
        self._record.clear()
        self._ids.release(self.cluster)
        self._id = 0
        self._kinds = frozenset()
