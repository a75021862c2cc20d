"""What other clusters export, followed in their etcds: those of a configuration directory."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec

from clustermesh import keys
from clustermesh.checks import BadFact
from clustermesh.keys import Kind, Layout, Origin
from clustermesh.local import AnyKind
from clustermesh.logs import get_logger
from clustermesh.mcs.names import Name
from clustermesh.model import ClusterConfig, ServiceExport
from clustermesh.remotes import directory, handshake
from clustermesh.remotes.directory import RemoteFile
from clustermesh.remotes.gate import Held
from clustermesh.remotes.handshake import Ids
from clustermesh.remotes.progress import Progress
from clustermesh.remotes.session import Follow, Opener, Role, Session, Waits
from clustermesh.remotes.supervision import keep_connected
from clustermesh.status import RemoteStatus
from kvstore.client import Reader
from kvstore.events import Event, Put, Synced
from kvstore.watch import ending, follow

log = get_logger()
KIND: Final = Kind.SERVICE_EXPORTS
KINDS: Final[tuple[AnyKind, ...]] = (KIND,)


class Me(msgspec.Struct, frozen=True, kw_only=True):
    """The own cluster, as a handshake needs it."""

    cluster: str
    cluster_id: int
    max_clusters: int


class Listener(Protocol):
    """Who is told of exports."""

    def told(self, cluster: str, name: Name, export: ServiceExport | None) -> None:
        """What a cluster exports under a name; None: nothing any more."""
        ...

    def exported_by(self, cluster: str) -> list[Name]:
        """The names that it was told of."""
        ...

    def complete(self, cluster: str) -> None:
        """All that the cluster exports has been told, or it is configured no more."""
        ...


class Remotes:
    """Follows the exports of every cluster that has a file in the directory."""

    def __init__(
        self,
        place: Path,
        *,
        me: Me,
        listener: Listener,
        opener: Opener,
        waits: Waits,
        scan_interval: float,
        report: Callable[[str | None], None],
    ) -> None:
        self._place = place
        self._me = me
        self._listener = listener
        self._opener = opener
        self._waits = waits
        self._scan_interval = scan_interval
        self._report = report
        self._ids = Ids(me)
        self._remotes: dict[str, _Remote] = {}
        self._scanned = False
        self._news = asyncio.Event()

    async def all_told(self) -> None:
        """Wait until every configured cluster has told all that it exports."""
        while self.unread() is None or self.unread():
            self._news.clear()
            await self._news.wait()

    def unread(self) -> frozenset[str] | None:
        """Clusters that have not told all since the start; None: not known which there are."""
        if not self._scanned:
            return None
        return frozenset(name for name, it in self._remotes.items() if not it.progress.confirmed)

    def statuses(self) -> tuple[RemoteStatus, ...]:
        """Every remote cluster, by name."""
        return tuple(self._remotes[name].status() for name in sorted(self._remotes))

    def trouble(self) -> tuple[str, ...]:
        """What is wrong with them, a sentence each."""
        said = ((name, it.progress.sentence()) for name, it in sorted(self._remotes.items()))
        return tuple(f"cluster {name}: {sentence}" for name, sentence in said if sentence)

    async def run(self) -> None:
        """Follow the directory until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            scans = directory.follow(
                self._place, own=self._me.cluster, interval=self._scan_interval
            )
            async with ending(scans) as found:
                async for files, problem in found:
                    self._report(problem or None)
                    if not problem:
                        self._turn(files, tasks)

    def _turn(self, files: Mapping[str, RemoteFile], tasks: asyncio.TaskGroup) -> None:
        self._scanned = True
        for name in self._remotes.keys() - files.keys():
            self._remotes.pop(name).end()
        for name, file in files.items():
            running = self._remotes.get(name)
            if running is not None and running.file.digest == file.digest:
                continue
            if running is not None:
                running.task.cancel()
            remote = _Remote(
                file,
                me=self._me,
                listener=self._listener,
                ids=self._ids,
                waits=self._waits,
                complete=self._complete,
            )
            remote.task = tasks.create_task(remote.run(self._opener), name=f"exports of {name}")
            self._remotes[name] = remote
        self._news.set()

    def _complete(self, cluster: str) -> None:
        self._listener.complete(cluster)
        self._news.set()


class _Remote:
    """One cluster under one configuration."""

    task: asyncio.Task[None]

    def __init__(
        self,
        file: RemoteFile,
        *,
        me: Me,
        listener: Listener,
        ids: Ids,
        waits: Waits,
        complete: Callable[[str], None],
    ) -> None:
        self.file = file
        self.progress = Progress(file.cluster)
        self._me = me
        self._listener = listener
        self._ids = ids
        self._waits = waits
        self._complete = complete
        self._session: Session | None = None

    async def run(self, opener: Opener) -> None:
        """Connect, and again when that ends; what was told stays meanwhile."""
        await keep_connected(
            lambda: self._connect(opener), self.progress, ceiling=self._waits.ceiling
        )

    def end(self) -> None:
        """Its file is gone: whatever it exported is exported no more."""
        self.task.cancel()
        self._ids.release(self.file.cluster)
        self._sweep(())
        self._complete(self.file.cluster)
        log.info("cluster drained", cluster=self.file.cluster)

    def status(self) -> RemoteStatus:
        """As an operator sees it."""
        count = len(self._listener.exported_by(self.file.cluster))
        return self.progress.status(lambda _, kind: count if kind is KIND else 0, self._session)

    async def _connect(self, opener: Opener) -> None:
        if self.file.config is None:
            self.progress.trouble("connection", self.file.problem)
            await asyncio.Event().wait()  # until the file changes
            return
        role = Role(judge=self._judge, accept=self._accept, readers=self._readers)
        session = Session(role=role, progress=self.progress, waits=self._waits)
        try:
            async with opener(self.file.config) as store:
                self._session = session
                await session.run(store)
        finally:
            self._session = None
            self.progress.end()

    def _judge(self, value: bytes) -> ClusterConfig:
        return handshake.judge(self.file.cluster, value, self._me)

    def _accept(self, config: ClusterConfig, _: bytes) -> None:
        self._ids.release(self.file.cluster)
        self._ids.reserve(self.file.cluster, config.id)

    def _readers(self, config: ClusterConfig) -> dict[AnyKind, Follow]:
        if config.capabilities.service_exports_enabled is None:
            return {KIND: self._nothing}
        return {KIND: lambda store, gate: self._read(config, store, gate)}

    async def _nothing(self, _: Reader, __: Held) -> None:
        """A control plane that knows no exports: there are none (contract kvstore 4)."""
        self._sweep(())
        self._all_told()
        await asyncio.Event().wait()

    async def _read(self, config: ClusterConfig, store: Reader, gate: Held) -> None:
        cluster = self.file.cluster
        layout = Layout.CACHE if config.capabilities.cached else Layout.STATE
        prefix = keys.prefix(KIND, layout, cluster)
        decode = keys.decoder(KIND, Origin(cluster, config.id, self._me.max_clusters, layout))
        seen: set[Name] | None = set()
        events = follow(
            store,
            prefix,
            gate=gate,
            canary=keys.canary(KIND, layout, cluster)
            if config.capabilities.synced_canaries
            else None,
            settings=self._waits.follow,
            report=self._tell,
        )
        async with ending(events) as slices:
            async for slice_ in slices:
                seen = self._take(slice_, prefix, decode, seen)
                await asyncio.sleep(0)

    def _take(
        self,
        events: Sequence[Event],
        prefix: str,
        decode: keys.Decoder,
        seen: set[Name] | None,
    ) -> set[Name] | None:
        """Hand on. ``seen``: what a first list has named so far, None when that is over."""
        cluster = self.file.cluster
        for event in events:
            if isinstance(event, Synced):
                if seen is not None:
                    self._sweep(seen)
                seen = None
                self._all_told()
                continue
            namespace, _, name = event.key.removeprefix(prefix).partition("/")
            if not isinstance(event, Put):
                self._listener.told(cluster, (namespace, name), None)
                continue
            try:
                fact = decode(event.key, event.value)
            except BadFact as error:
                self.progress.bad_value(KIND, event.key, str(error))
                continue
            self.progress.news()
            if seen is not None:
                seen.add((namespace, name))
            if isinstance(fact, ServiceExport):
                self._listener.told(cluster, (namespace, name), fact)
        return seen

    def _sweep(self, there: set[Name] | tuple[()]) -> None:
        """What an earlier connection told and the first list of this one did not is gone."""
        cluster = self.file.cluster
        for name in self._listener.exported_by(cluster):
            if name not in there:
                self._listener.told(cluster, name, None)

    def _all_told(self) -> None:
        self.progress.synced(KIND)
        self._complete(self.file.cluster)

    def _tell(self, sentence: str | None) -> None:
        waiting = sentence is not None and "/synced/" in sentence
        self.progress.awaiting(KIND, sentence if waiting else None)
        self.progress.trouble(KIND, None if waiting else sentence)
