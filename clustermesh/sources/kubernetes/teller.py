"""What a sink is told of one kind: bounded slices, removals for what vanished, troubles once."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

from clustermesh.sources.kubernetes import wire
from clustermesh.sources.kubernetes.picture import Picture
from clustermesh.sources.kubernetes.wire import (
    Bookmark,
    Changed,
    Deleted,
    Happening,
    Listed,
    Refusal,
    Unread,
)
from clustermesh.sources.objects import ObjectKind
from clustermesh.sources.port import ObjectChange, Removal, SourceSink, Upsert

T = TypeVar("T")
SLICE = 1000
"""Changes handed over at once; the loop breathes between."""


class Teller:
    """Turns lists and events of one kind into calls of a sink; owns what the sink knows."""

    def __init__(self, kind: ObjectKind, sink: SourceSink) -> None:
        """Nothing has been told."""
        self._kind = kind
        self._sink = sink
        self._known = Picture()
        self._refused = Picture()
        self._troubled = False

    def __len__(self) -> int:
        """How many objects the sink knows."""
        return len(self._known)

    def begin(self) -> None:
        """Everything will be told anew."""
        self._known.mark()
        self._refused.mark()

    async def listed(self, page: Listed) -> None:
        """Some of what exists."""
        for refusal in page.refusals:
            self._refuse(refusal)
        async for objects in _slices(page.objects):
            self._apply([Upsert(each) for each in objects])

    async def heard(self, happenings: Sequence[Happening]) -> None:
        """Changes, in order."""
        async for some in _slices(happenings):
            changes = map(self._change, some)
            self._apply([each for each in changes if each is not None])

    async def complete(self) -> None:
        """Everything that exists has been told: the rest is gone."""
        for name in self._refused.sweep():
            self._sink.refused(self._title(name), None)
        async for names in _slices(self._known.sweep()):
            gone = [Removal(wire.ref_of(self._kind, name)) for name in names]
            self._sink.apply(self._kind, gone)
        self.well()
        self._sink.synced(self._kind)

    def trouble(self, sentence: str) -> None:
        """The kind cannot be followed at present."""
        self._troubled = True
        self._sink.trouble(self._kind, sentence)

    def well(self) -> None:
        """It can."""
        if self._troubled:
            self._troubled = False
            self._sink.trouble(self._kind, None)

    def _apply(self, changes: Sequence[ObjectChange]) -> None:
        if not changes:
            return
        self._sink.apply(self._kind, changes)
        for change in changes:
            match change:
                case Upsert(object_):
                    name = wire.name_of(self._kind, object_)
                    self._known.put(name)
                    self._can_be_read(name)
                case Removal(gone):
                    self._can_be_read(wire.key(gone))
                    self._known.drop(wire.key(gone))

    def _change(self, happening: Happening) -> ObjectChange | None:
        match happening:
            case Changed(object_):
                return Upsert(object_)
            case Deleted(gone):
                return Removal(gone)
            case Unread(refusal):
                self._refuse(refusal)
                return None
            case Bookmark():
                return None

    def _refuse(self, refusal: Refusal) -> None:
        """What was told of the object before stays."""
        name = wire.key(refusal.ref) if refusal.ref else ""
        self._known.keep(name)
        self._refused.put(name)
        self._sink.refused(self._title(name), refusal.reason)

    def _can_be_read(self, name: str) -> None:
        if self._refused and self._refused.drop(name):
            self._sink.refused(self._title(name), None)

    def _title(self, name: str) -> str:
        return str(wire.ref_of(self._kind, name)) if name else f"{self._kind} without a name"


async def _slices(items: Sequence[T]) -> AsyncIterator[Sequence[T]]:
    """Pieces of a sequence, with a breath between them."""
    for start in range(0, len(items), SLICE):
        if start:
            await asyncio.sleep(0)
        yield items[start : start + SLICE]
