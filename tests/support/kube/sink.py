"""A sink that remembers everything, and lets a test wait for what it wants to be true."""

import asyncio
from collections.abc import Callable, Sequence

from clustermesh.sources.objects import KubernetesObject, ObjectKind, Ref, ref
from clustermesh.sources.port import ObjectChange, Removal, Upsert

PATIENCE = 45.0


class RecordingSink:
    """Implements ``SourceSink``."""

    def __init__(self) -> None:
        self.kinds: frozenset[ObjectKind] = frozenset()
        self.objects: dict[Ref, KubernetesObject] = {}
        self.removed: list[Ref] = []
        self.upserts: list[Ref] = []
        self.sizes: list[int] = []
        self.times_synced: dict[ObjectKind, int] = {}
        self.refusals: dict[str, str] = {}
        self.troubles: dict[ObjectKind | None, str] = {}
        self.sentences: list[str] = []
        self.on_apply: Callable[[ObjectKind, Sequence[ObjectChange]], object] = lambda *_: None
        self._changed = asyncio.Event()

    def apply(self, kind: ObjectKind, changes: Sequence[ObjectChange]) -> None:
        assert all(_kind(change) is kind for change in changes)
        self.sizes.append(len(changes))
        self.on_apply(kind, changes)
        for change in changes:
            match change:
                case Upsert(object_):
                    self.objects[ref(object_)] = object_
                    self.upserts.append(ref(object_))
                case Removal(gone):
                    self.objects.pop(gone, None)
                    self.removed.append(gone)
        self._changed.set()

    def synced(self, kind: ObjectKind) -> None:
        self.times_synced[kind] = self.times_synced.get(kind, 0) + 1
        self._changed.set()

    def refused(self, what: str, reason: str | None) -> None:
        self.refusals.pop(what, None)
        if reason is not None:
            self.refusals[what] = reason
        self._changed.set()

    def trouble(self, kind: ObjectKind | None, reason: str | None) -> None:
        self.troubles.pop(kind, None)
        if reason is not None:
            self.troubles[kind] = reason
            self.sentences.append(reason)
        self._changed.set()

    def names(self, kind: ObjectKind, namespace: str = "") -> set[str]:
        return {
            each.name
            for each in self.objects
            if each.kind is kind and (not namespace or each.namespace == namespace)
        }

    def forget(self) -> None:
        """What was told so far is of no interest any more; what is known stays."""
        self.removed.clear()
        self.upserts.clear()
        self.sentences.clear()

    @property
    def complete(self) -> bool:
        """Every kind has been told in full."""
        return bool(self.kinds) and self.kinds <= self.times_synced.keys()

    async def until(self, true: Callable[[], object]) -> None:
        """Wait generously for something to be so."""
        async with asyncio.timeout(PATIENCE):
            while not true():
                self._changed.clear()
                await self._changed.wait()


def _kind(change: ObjectChange) -> ObjectKind:
    return ref(change.object).kind if isinstance(change, Upsert) else change.ref.kind


async def eventually(true: Callable[[], object], *, every: float = 0.02) -> None:
    """Look until something is so that nobody tells of."""
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(every)
