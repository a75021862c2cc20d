"""A sink that remembers what a source said, and lets a test wait for it."""

import asyncio
from collections.abc import Callable, Sequence

from clustermesh.sources.objects import KubernetesObject, ObjectKind, Ref, ref
from clustermesh.sources.port import ObjectChange, Upsert


class MemorySink:
    """The objects as the source tells them, refusals, troubles, and the calls in order."""

    def __init__(self) -> None:
        self.objects: dict[Ref, KubernetesObject] = {}
        self.refusals: dict[str, str] = {}
        self.troubles: dict[ObjectKind | None, str] = {}
        self.kinds_synced: set[ObjectKind] = set()
        self.changes: list[ObjectChange] = []
        self._told = asyncio.Event()

    def apply(self, kind: ObjectKind, changes: Sequence[ObjectChange]) -> None:
        for change in changes:
            self.changes.append(change)
            if isinstance(change, Upsert):
                assert ref(change.object).kind is kind
                self.objects[ref(change.object)] = change.object
            else:
                assert change.ref.kind is kind
                del self.objects[change.ref]
        self._told.set()

    def synced(self, kind: ObjectKind) -> None:
        self.kinds_synced.add(kind)
        self._told.set()

    def refused(self, what: str, reason: str | None) -> None:
        if reason is None:
            del self.refusals[what]
        else:
            self.refusals[what] = reason
        self._told.set()

    def trouble(self, kind: ObjectKind | None, reason: str | None) -> None:
        if reason is None:
            self.troubles.pop(kind, None)
        else:
            self.troubles[kind] = reason
        self._told.set()

    def names(self) -> set[str]:
        """What the objects are called: ``Service web/front``."""
        return {str(each) for each in self.objects}

    async def until(self, condition: Callable[[], bool], seconds: float = 20.0) -> None:
        """Wait for a fact, however long the machine needs."""
        async with asyncio.timeout(seconds):
            while not condition():
                self._told.clear()
                await self._told.wait()
