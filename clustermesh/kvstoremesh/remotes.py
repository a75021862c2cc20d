"""All remote clusters of a kvstoremesh: those configured, and those that have yet to go."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import structlog

from clustermesh.kvstoremesh import places
from clustermesh.kvstoremesh.drain import insist
from clustermesh.kvstoremesh.remote import Remote, Tuning
from clustermesh.remotes import directory
from clustermesh.remotes.directory import RemoteFile
from clustermesh.remotes.handshake import Ids, Me
from clustermesh.remotes.session import Opener
from clustermesh.status import RemoteStatus
from kvstore.backoff import Backoff
from kvstore.client import Store
from kvstore.watch import ending

log = structlog.get_logger()


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """Where remotes are configured, and how often that is read without an event (seconds)."""

    directory: Path
    scan_interval: float = 30.0


class Remotes:
    """Begins, changes and ends the lives of remotes. One task each; none waits for another."""

    def __init__(
        self,
        places: Places,
        *,
        me: Me,
        cache: Store,
        opener: Opener,
        tuning: Tuning,
        report: Callable[[str | None], None],
    ) -> None:
        self.settled = asyncio.Event()
        """Set when every remote of the start is copied, or was waited for long enough."""
        self._places = places
        self._me = me
        self._cache = cache
        self._opener = opener
        self._tuning = tuning
        self._report = report
        self._ids = Ids(me)
        self._remotes: dict[str, Remote] = {}
        self._scanned = False

    async def run(self) -> None:
        """Follow the directory until cancelled."""
        copied = await self._copied()
        async with asyncio.TaskGroup() as tasks:
            scans = directory.follow(
                self._places.directory, own=self._me.cluster, interval=self._places.scan_interval
            )
            async with ending(scans) as found:
                async for files, problem in found:
                    self._report(problem or None)
                    if not problem:
                        self._turn(files, copied, tasks)
                        copied = frozenset()
                    elif not self._scanned:
                        self._turn(self._presumed(copied, problem), copied, tasks)

    # -- asked by those who report --------------------------------------------------------------

    def each(self) -> Iterable[Remote]:
        """Every remote, by name."""
        return [self._remotes[name] for name in sorted(self._remotes)]

    def statuses(self) -> list[RemoteStatus]:
        """What the operator sees of them."""
        return [remote.status() for remote in self.each()]

    def trouble(self) -> list[str]:
        """What is wrong with remotes, a sentence each."""
        sentences = ((remote.cluster, remote.progress.sentence()) for remote in self.each())
        return [f"cluster {name}: {sentence}" for name, sentence in sentences if sentence]

    # -- their lives ----------------------------------------------------------------------------

    async def _copied(self) -> frozenset[str]:
        """The clusters of which there is a copy from an earlier life."""
        signs: dict[str, bytes] = {}

        async def read() -> None:
            signs.clear()
            for prefix in places.SIGNS:
                async with ending(self._cache.pages(prefix)) as pages:
                    async for page in pages:
                        signs.update((entry.key, entry.value) for entry in page.entries)

        await insist(self._cache, read, backoff=Backoff(), report=self._report)
        return places.copied_clusters(signs) - {self._me.cluster}

    def _presumed(self, copied: Iterable[str], problem: str) -> directory.Remotes:
        """While the configuration cannot be read: those that were configured the last time.

        To take an unreadable directory for an empty one would drain every cluster.
        """
        path = self._places.directory
        return {name: RemoteFile(name, path / name, "", problem=problem) for name in copied}

    def _turn(
        self, files: directory.Remotes, copied: Iterable[str], tasks: asyncio.TaskGroup
    ) -> None:
        """Make the directory's content the configuration; other copies there are go."""
        first, self._scanned = not self._scanned, True
        for name in self._remotes.keys() - files.keys():
            self._remotes[name].configure(None)
        for name in sorted({*files, *copied}):
            if name not in self._remotes:
                self._begin(name, files.get(name), tasks)
            elif name in files:
                self._remotes[name].configure(files[name])
        if first:
            tasks.create_task(self._settle([*self.each()]))

    def _begin(self, name: str, file: RemoteFile | None, tasks: asyncio.TaskGroup) -> None:
        log.info("cluster configured" if file else "copy of an unknown cluster", cluster=name)
        remote = Remote(
            name,
            me=self._me,
            ids=self._ids,
            cache=self._cache,
            opener=self._opener,
            tuning=self._tuning,
        )
        remote.configure(file)
        self._remotes[name] = remote
        tasks.create_task(self._live(remote), name=f"remote/{name}")

    async def _live(self, remote: Remote) -> None:
        await remote.run()
        del self._remotes[remote.cluster]
        log.info("cluster removed", cluster=remote.cluster)

    async def _settle(self, remotes: Iterable[Remote]) -> None:
        for remote in remotes:
            await remote.progress.settled.wait()
        self.settled.set()
