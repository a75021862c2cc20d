"""A sink between followers and publication: order of kinds, and numbers before addresses."""

import asyncio
from collections.abc import Collection, Sequence

from clustermesh.sources.kubernetes.records import Numbers
from clustermesh.sources.objects import ObjectKind
from clustermesh.sources.port import ObjectChange, SourceSink


class Ordered:
    """Passes everything on, and knows which kinds have been read."""

    def __init__(self, sink: SourceSink) -> None:
        """Nothing has been read."""
        self._sink = sink
        self._known: set[ObjectKind] = set()
        self._learned = asyncio.Event()

    async def read(self, kinds: Collection[ObjectKind]) -> None:
        """Wait until these have been read in full."""
        while not self._known.issuperset(kinds):
            self._learned.clear()
            await self._learned.wait()

    def apply(self, kind: ObjectKind, changes: Sequence[ObjectChange]) -> None:
        """As ``SourceSink``."""
        self._sink.apply(kind, changes)

    def synced(self, kind: ObjectKind) -> None:
        """As ``SourceSink``."""
        self._sink.synced(kind)
        self._known.add(kind)
        self._learned.set()

    def refused(self, what: str, reason: str | None) -> None:
        """As ``SourceSink``."""
        self._sink.refused(what, reason)

    def trouble(self, kind: ObjectKind | None, reason: str | None) -> None:
        """As ``SourceSink``."""
        self._sink.trouble(kind, reason)


class Numbered(Ordered):
    """Pods have been read in full only when each has its number."""

    def __init__(self, sink: SourceSink, numbers: Numbers) -> None:
        """``numbers`` learns from the records that pass."""
        super().__init__(sink)
        self._numbers = numbers
        self._pods_read = asyncio.Event()
        self._in_trouble = False

    def apply(self, kind: ObjectKind, changes: Sequence[ObjectChange]) -> None:
        """As ``SourceSink``."""
        super().apply(kind, changes)
        if kind is ObjectKind.MESH_IDENTITY:
            self._numbers.learn(changes)

    def synced(self, kind: ObjectKind) -> None:
        """As ``SourceSink``, but for pods."""
        if kind is ObjectKind.POD:
            self._pods_read.set()
            return
        if kind is ObjectKind.MESH_IDENTITY:
            self._numbers.synced()
        super().synced(kind)

    async def run(self) -> None:
        """Give numbers for ever, and say when pods are complete."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._numbers.run(self._report), name="identities")
            tasks.create_task(self._complete_pods(), name="identities complete")

    async def _complete_pods(self) -> None:
        while True:
            await self._pods_read.wait()
            self._pods_read.clear()
            await self._numbers.settled()
            super().synced(ObjectKind.POD)

    def _report(self, reason: str | None) -> None:
        if reason is not None or self._in_trouble:
            self._in_trouble = reason is not None
            self.trouble(ObjectKind.MESH_IDENTITY, reason)
