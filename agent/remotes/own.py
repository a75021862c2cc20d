"""The own cluster, followed like any other, but for ever: it is never drained."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

from agent.facts import AnyFact, AnyKind, Me, Sink
from agent.remotes import feeds
from agent.remotes.lane import Lane
from agent.remotes.listening import Listen, silence
from agent.remotes.lookup import look_up
from agent.remotes.reader import readers
from clustermesh.model import ClusterConfig
from clustermesh.remotes import handshake
from clustermesh.remotes.progress import Counts, Progress
from clustermesh.remotes.session import Follow, Opener, Role, Session, Waits
from clustermesh.remotes.supervision import keep_connected
from clustermesh.status import RemoteStatus
from kvstore.config import EtcdConfig

log = structlog.get_logger()


class NoRecord:
    """The own cluster's facts are not remembered: without its etcd nothing of it is pruned."""

    def put(self, kind: AnyKind, key: str, value: bytes) -> None:
        """Not remembered."""

    def delete(self, kind: AnyKind, key: str) -> None:
        """Not remembered."""

    def listing(self, kind: AnyKind) -> None:
        """Not remembered."""

    def listed(self, kind: AnyKind) -> None:
        """Not remembered."""


class Own:
    """This node's own cluster, as its etcd tells it."""

    def __init__(
        self,
        path: Path,
        *,
        me: Me,
        sink: Sink,
        opener: Opener,
        waits: Waits,
        report: Callable[[str | None], None],
        listen: Listen = silence,
        lane: Lane | None = None,
    ) -> None:
        self.progress = Progress(me.cluster)
        self._path = path
        self._me = me
        self._sink = sink
        self._opener = opener
        self._waits = waits
        self._listen = listen
        self._lane = lane or Lane()
        self._report = report
        self._session: Session | None = None
        self._known = False

    @property
    def fresh(self) -> bool:
        """Whether what we know of the own cluster is what is true: read in full, and followed."""
        return self.progress.ready and self._session is not None and not self._session.held

    def status(self, counts: Counts) -> RemoteStatus:
        """What the operator sees of it."""
        return self.progress.status(counts, self._session)

    async def fact(self, kind: AnyKind, name: str) -> AnyFact | None:
        """A fact as its etcd has it now, None when that cannot be told."""
        return await look_up(self._session, feeds.of_own(self._me), kind, name)

    async def run(self) -> None:
        """Follow until cancelled."""
        self.progress.on_change = self._tell
        await keep_connected(self._connect, self.progress, ceiling=self._waits.ceiling)

    def _tell(self) -> None:
        self._report(None if self.progress.ready else self.progress.sentence() or "being read")

    async def _connect(self) -> None:
        config = await asyncio.to_thread(EtcdConfig.load, self._path)
        role = Role(
            judge=self._judge,
            accept=self._accept,
            readers=self._readers,
            listeners=lambda config: self._listen(self._me.cluster, config),
        )
        session = Session(role=role, progress=self.progress, waits=self._waits)
        try:
            async with self._opener(config) as store:
                self._session = session
                await session.run(store)
        finally:
            self._session = None
            self.progress.end()
            self._sink.unsynced(self._me.cluster)

    def _judge(self, value: bytes) -> ClusterConfig:
        return handshake.judge_own(value, self._me)

    def _accept(self, _: ClusterConfig, __: bytes) -> None:
        if self._known:
            self._sink.unconfirmed(self._me.cluster)
        self._known = True

    def _readers(self, _: ClusterConfig) -> dict[AnyKind, Follow]:
        return readers(
            feeds.of_own(self._me),
            sink=self._sink,
            progress=self.progress,
            record=NoRecord(),
            settings=self._waits.follow,
            lane=self._lane,
        )
