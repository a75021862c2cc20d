"""All remote clusters of this node: those whose files are in the configuration directory."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import structlog

from agent.checkpoint import Checkpoint, Saved
from agent.facts import AnyFact, AnyKind, Me, Sink
from agent.remotes.lane import Lane
from agent.remotes.listening import Listen, silence
from agent.remotes.remote import Remote
from clustermesh.remotes import directory
from clustermesh.remotes.handshake import Ids
from clustermesh.remotes.progress import Counts
from clustermesh.remotes.session import Opener, Waits
from clustermesh.status import RemoteStatus
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
        sink: Sink,
        checkpoint: Checkpoint,
        opener: Opener,
        waits: Waits,
        report: Callable[[str | None], None],
        listen: Listen = silence,
        lane: Lane | None = None,
    ) -> None:
        self.settled = asyncio.Event()
        """Set when every remote of the start was ready once, or was waited for long enough."""
        self._places = places
        self._me = me
        self._sink = sink
        self._checkpoint = checkpoint
        self._opener = opener
        self._waits = waits
        self._listen = listen
        self._lane = lane or Lane()
        self._report = report
        self._ids = Ids(me)
        self._remotes: dict[str, Remote] = {}
        self._saved: Mapping[str, Saved] = {}
        self._scanned = False

    async def run(self) -> None:
        """Follow the directory until cancelled."""
        self._saved = await asyncio.to_thread(self._checkpoint.load)
        async with asyncio.TaskGroup() as tasks:
            scans = directory.follow(
                self._places.directory, own=self._me.cluster, interval=self._places.scan_interval
            )
            async with ending(scans) as found:
                async for files, problem in found:
                    self._report(problem or None)
                    if not problem:
                        self._turn(files, tasks)
                    elif not self._scanned:
                        self._turn(self._presumed(problem), tasks)

    @property
    def complete(self) -> bool:
        """Whether the configuration is known and each remote has told all since the start."""
        return self._scanned and all(it.progress.confirmed for it in self._remotes.values())

    def statuses(self, counts: Counts) -> list[RemoteStatus]:
        """Every remote, by name."""
        return [self._remotes[name].status(counts) for name in sorted(self._remotes)]

    async def fact(self, cluster: str, kind: AnyKind, name: str) -> AnyFact | None:
        """A fact as a remote's etcd has it now, None when that cannot be told."""
        remote = self._remotes.get(cluster)
        return await remote.fact(kind, name) if remote is not None else None

    def trouble(self) -> list[str]:
        """What is wrong with remotes, a sentence each."""
        sentences = (
            (name, self._remotes[name].progress.sentence()) for name in sorted(self._remotes)
        )
        return [f"cluster {name}: {sentence}" for name, sentence in sentences if sentence]

    def _presumed(self, problem: str) -> directory.Remotes:
        """While the configuration cannot be read: the clusters that were configured last time.

        To take an unreadable directory for an empty one would drain every cluster.
        """
        path = self._places.directory
        return {
            name: directory.RemoteFile(name, path / name, "", problem=problem)
            for name in self._saved
        }

    def _turn(self, files: directory.Remotes, tasks: asyncio.TaskGroup) -> None:
        """Make the directory's content the configuration."""
        self._sink.expect(frozenset(filter(directory.NAME.fullmatch, files)))
        for name in self._remotes.keys() - files.keys():
            self._remotes[name].configure(None)
        first, self._scanned = not self._scanned, True
        for name, file in files.items():
            if name in self._remotes:
                self._remotes[name].configure(file)
            else:
                self._begin(file, tasks)
        for name in self._saved.keys() - files.keys():
            self._checkpoint.forget(name)
        self._saved = {}
        if first:
            tasks.create_task(self._settle(list(self._remotes.values())))

    def _begin(self, file: directory.RemoteFile, tasks: asyncio.TaskGroup) -> None:
        log.info("cluster configured", cluster=file.cluster, path=str(file.path))
        remote = Remote(
            file.cluster,
            me=self._me,
            sink=self._sink,
            ids=self._ids,
            record=self._checkpoint.record(file.cluster),
            opener=self._opener,
            waits=self._waits,
            listen=self._listen,
            lane=self._lane,
            crowd=lambda: len(self._remotes),
        )
        if saved := self._saved.get(file.cluster):
            remote.restore(saved)
        remote.configure(file)
        self._remotes[file.cluster] = remote
        tasks.create_task(self._live(remote), name=f"remote/{file.cluster}")

    async def _live(self, remote: Remote) -> None:
        while not remote.removed:
            await remote.run()
        del self._remotes[remote.cluster]
        log.info("cluster removed", cluster=remote.cluster)

    async def _settle(self, remotes: list[Remote]) -> None:
        for remote in remotes:
            await remote.progress.settled.wait()
        self.settled.set()
