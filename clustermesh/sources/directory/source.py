"""Follows a directory of manifests: what is in its files is what is in the cluster."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
from watchfiles import awatch

from clustermesh.sources.directory.files import (
    Version,
    below,
    is_manifest,
    manifests,
    may_lead_to_manifests,
    version,
)
from clustermesh.sources.directory.folder import Folder
from clustermesh.sources.directory.parse import parse
from clustermesh.sources.objects import ObjectKind, ref
from clustermesh.sources.port import ObjectChange, SourceSink, Upsert

SLICE = 1000
"""Changes handed over at once."""


class DirectorySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds.

    ``step``: how often the kernel's reports are collected; they are handled when one step brought
    none, and at the latest after ``debounce``. ``settle``: how long a file that is being written
    in place must be quiet before what vanished from it, or went bad, is believed; one that was
    moved into place is believed at once. ``linger``: how long a file must be gone (editors move
    the old one away first). ``rescan``: how often all files are looked at, whatever the kernel
    reported. ``retry``: how often a directory that is not there is looked for.
    """

    path: Path
    step: float = 0.01
    debounce: float = 0.05
    settle: float = 0.15
    linger: float = 0.03
    rescan: float = 30.0
    retry: float = 1.0


class DirectorySource:
    """A ``Source`` over a directory and its sub-directories.

    A file is called by its path below the directory, a document by its number in the file.
    """

    def __init__(
        self,
        settings: DirectorySettings,
        kinds: frozenset[ObjectKind],
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """``kinds``: what to deliver; others in the files are passed over."""
        self._settings = settings
        self._kinds = kinds
        self._wall = wall
        self._folder = Folder()
        self._versions: dict[str, Version] = {}
        self._gone: dict[str, float] = {}
        self._again: dict[str, float] = {}
        self._synced = False

    @property
    def kinds(self) -> frozenset[ObjectKind]:
        """What it delivers."""
        return self._kinds

    async def run(self, sink: SourceSink) -> None:
        """Deliver until cancelled. A directory that is not there is waited for.

        Meanwhile what it held last stays: a directory that vanished says nothing about its files.
        """
        while True:
            try:
                await self._follow(sink)
            except* OSError as group:
                error = _innermost(group)
                place = self._settings.path
                reason = error.strerror or str(error)
                sink.trouble(None, f"cannot follow the manifests in {place}: {reason}")
            await asyncio.sleep(self._settings.retry)

    async def _follow(self, sink: SourceSink) -> None:
        """Until the directory is gone or another one is in its place."""
        root = self._settings.path
        inode = root.stat().st_ino
        reported = _Reports()
        async with asyncio.TaskGroup() as tasks:
            watcher = tasks.create_task(self._watch(reported), name="watch manifests")
            try:
                await asyncio.sleep(0)  # the watch is in place before the first look
                names: Iterable[str] | None = None
                while root.stat().st_ino == inode:
                    await self._look(sink, names)
                    names = self._due(await reported.next(self._until_due()))
            finally:
                watcher.cancel()

    async def _watch(self, reported: "_Reports") -> None:
        root, settings = self._settings.path, self._settings
        async for changes in awatch(
            root,
            watch_filter=None,
            step=round(settings.step * 1000),
            debounce=round(settings.debounce * 1000),
        ):
            reported.add(root, (below(root, path) for _, path in changes))

    async def _look(self, sink: SourceSink, names: Iterable[str] | None) -> None:
        """Read the files of these names (None: all that changed) and hand over what follows."""
        everything = names is None
        if names is None:
            present = set(manifests(self._settings.path))
            names = present | self._folder.names()
        pending: list[ObjectChange] = []
        for name in sorted(names):
            pending += self._read(name, changed_only=everything)
            await asyncio.sleep(0)
        self._deliver(sink, pending)
        for where, reason in self._folder.complaints():
            sink.refused(where, reason)
        if not self._synced:
            self._synced = True
            for kind in sorted(self._kinds):
                sink.synced(kind)
        sink.trouble(None, None)

    def _read(self, name: str, *, changed_only: bool) -> list[ObjectChange]:
        path = self._settings.path / name
        now = version(path)
        if now is None:
            return self._missing(name)
        self._gone.pop(name, None)
        before = self._versions.get(name)
        if changed_only and now == before and name not in self._again:
            return []
        try:
            parsed = parse(path.read_bytes())
        except OSError as error:
            self._folder.unreadable(name, f"cannot be read: {error.strerror}")
            return []
        moved_here = before is not None and before.inode != now.inode
        if self._folder.takes_away(name, parsed) and not moved_here:
            quiet = self._settings.settle - (self._wall() - now.modified / 1e9)
            if 0 < quiet <= self._settings.settle:
                self._again[name] = asyncio.get_running_loop().time() + quiet
                return self._folder.put(name, parsed, whole=False)
        self._again.pop(name, None)
        self._versions[name] = now
        return self._folder.put(name, parsed)

    def _missing(self, name: str) -> list[ObjectChange]:
        """A file that is gone is given a moment to come back."""
        if name not in self._folder.names():
            self._again.pop(name, None)
            return []
        now = asyncio.get_running_loop().time()
        since = self._gone.setdefault(name, now)
        if now < since + self._settings.linger:
            self._again[name] = since + self._settings.linger
            return []
        for memory in (self._gone, self._again, self._versions):
            memory.pop(name, None)
        return self._folder.drop(name)

    def _deliver(self, sink: SourceSink, changes: Iterable[ObjectChange]) -> None:
        """By kind, in the order of the kinds: namespaces first."""
        by_kind: dict[ObjectKind, list[ObjectChange]] = {kind: [] for kind in ObjectKind}
        for change in changes:
            name = ref(change.object) if isinstance(change, Upsert) else change.ref
            by_kind[name.kind].append(change)
        for kind, of_kind in by_kind.items():
            for start in range(0, len(of_kind) if kind in self._kinds else 0, SLICE):
                sink.apply(kind, of_kind[start : start + SLICE])

    def _due(self, reported: set[str] | None) -> set[str] | None:
        """What to look at: reports, and files that had to wait; all when there is neither."""
        if reported is None:
            return None
        return (reported | self._again.keys()) or None

    def _until_due(self) -> float:
        """Seconds until something must be looked at again."""
        due = min(self._again.values(), default=None)
        if due is None:
            return self._settings.rescan
        return max(0.001, due - asyncio.get_running_loop().time())


class _Reports:
    """Names that the kernel reported, until somebody asks for them."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._everything = False
        self._some = asyncio.Event()

    def add(self, root: Path, names: Iterable[str]) -> None:
        for name in names:
            if is_manifest(name):
                self._names.add(name)
            elif not self._everything:
                self._everything = may_lead_to_manifests(root, name)
        if self._names or self._everything:
            self._some.set()

    async def next(self, patience: float) -> set[str] | None:
        """The names reported, after at most ``patience`` seconds; None: look at all."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._some.wait()
        names = None if self._everything else self._names
        self._names, self._everything = set(), False
        self._some.clear()
        return names


def _innermost(error: BaseException) -> OSError:
    """The first ``OSError`` in a group of groups of them."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, OSError):
        raise TypeError(f"expected an OSError, got {error!r}")
    return error
