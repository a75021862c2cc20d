"""One kind of one cluster: decoded, handed on in small slices, and remembered for a restart."""

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Protocol

from agent.facts import AnyKind, Change, Sink
from agent.remotes.feeds import Feed
from agent.remotes.lane import CHUNK, FEW, Lane
from clustermesh.checks import BadFact
from clustermesh.remotes.gate import Held
from clustermesh.remotes.progress import Progress
from clustermesh.remotes.session import Follow
from kvstore.client import Reader
from kvstore.events import Delete, Event, Put, Synced
from kvstore.watch import FollowSettings, ending, follow


class Record(Protocol):
    """What remembers raw facts for a restart; see ``agent.checkpoint``."""

    def put(self, kind: AnyKind, key: str, value: bytes) -> None:
        """``key`` (as in ``facts.Change``) has this value."""
        ...

    def delete(self, kind: AnyKind, key: str) -> None:
        """``key`` is gone."""
        ...

    def listing(self, kind: AnyKind) -> None:
        """A full list of the kind begins."""
        ...

    def listed(self, kind: AnyKind) -> None:
        """What the list since ``listing`` did not repeat is gone."""
        ...


class KindReader:
    """Follows one feed for as long as a connection lasts."""

    def __init__(
        self,
        feed: Feed,
        *,
        sink: Sink,
        progress: Progress,
        gate: Held,
        record: Record,
        lane: Lane,
    ) -> None:
        self._feed = feed
        self._sink = sink
        self._progress = progress
        self._gate = gate
        self._record = record
        self._lane = lane
        self._bad: set[str] = set()
        """Keys whose present value was refused: an older one is swept at the next full list."""

    async def run(self, store: Reader, settings: FollowSettings) -> None:
        """Follow until cancelled."""
        self._record.listing(self._feed.kind)
        events = follow(
            store,
            self._feed.prefix,
            gate=self._gate,
            canary=self._feed.canary or None,
            settings=settings,
            report=self._report,
        )
        async with ending(events) as slices:
            async for slice_ in slices:
                if len(slice_) <= FEW:
                    self._take(slice_)
                    await asyncio.sleep(0)
                    continue
                for start in range(0, len(slice_), CHUNK):
                    await self._lane.take(partial(self._take, slice_[start : start + CHUNK]))

    def _report(self, sentence: str | None) -> None:
        canary = self._feed.canary
        waiting = sentence is not None and bool(canary) and canary in sentence
        self._progress.awaiting(self._feed.kind, sentence if waiting else None)
        self._progress.trouble(self._feed.kind, None if waiting else sentence)
        if sentence is None and self._gate.tells():
            self._progress.told(self._feed.kind)  # only what is gone may still be held

    def _take(self, events: Sequence[Event]) -> None:
        changes: list[Change] = []
        for event in events:
            if isinstance(event, Synced):
                self._apply(changes)
                changes = []
                self._synced()
            elif change := self._change(event):
                changes.append(change)
        self._apply(changes)

    def _apply(self, changes: Sequence[Change]) -> None:
        if changes:
            self._progress.news()
            self._sink.apply(self._progress.cluster, self._feed.kind, changes)

    def _change(self, event: Put | Delete) -> Change | None:
        feed = self._feed
        name = event.key.removeprefix(feed.prefix)
        if isinstance(event, Delete):
            self._bad.discard(name)
            if not _is_text(name):
                return None
            self._record.delete(feed.kind, name)
            return name, None
        try:
            fact = feed.decode(event.key, event.value)
        except BadFact as error:
            if _is_text(name):
                self._bad.add(name)
            self._progress.bad_value(feed.kind, name, str(error))
            return None
        self._bad.discard(name)
        self._record.put(feed.kind, name, event.value)
        return name, fact

    def _synced(self) -> None:
        kind = self._feed.kind
        for name in self._bad:
            self._record.delete(kind, name)
        self._apply([(name, None) for name in self._bad])
        self._record.listed(kind)
        self._sink.synced(self._progress.cluster, kind)
        self._progress.synced(kind)


def _is_text(name: str) -> bool:
    """Could there ever have been a fact of this name? etcd takes any bytes for a key."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def readers(
    feeds: Iterable[Feed],
    *,
    sink: Sink,
    progress: Progress,
    record: Record,
    settings: FollowSettings,
    lane: Lane,
) -> dict[AnyKind, Follow]:
    """What a session starts for each feed."""

    def of(feed: Feed) -> Follow:
        async def run(store: Reader, gate: Held) -> None:
            reader = KindReader(
                feed, sink=sink, progress=progress, gate=gate, record=record, lane=lane
            )
            await reader.run(store, settings)

        return run

    return {feed.kind: of(feed) for feed in feeds}
