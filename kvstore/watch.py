"""Following a prefix for ever: list, synced, changes; gaps come out as ordinary events."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar, runtime_checkable

import msgspec

from kvstore.backoff import Backoff
from kvstore.client import Batch, Denied, HistoryLost, OtherPast, Point, Reader, StoreError
from kvstore.events import Change, Delete, Event, Put, Synced
from kvstore.gate import Belief, Dated, Gate
from kvstore.pace import Pace

__all__ = [
    "Connected",
    "Dated",
    "FollowSettings",
    "Gate",
    "Report",
    "connection_of",
    "ending",
    "follow",
    "pause",
]

T = TypeVar("T")
Report = Callable[[str | None], None]


class FollowSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds and sizes of a follower."""

    first_wait: float = 0.05
    ceiling: float = 60.0
    """A list that fails is tried again after 50 ms, in the end after a minute (contract kvstore
    5.2).
    """
    jitter: float = 0.3
    """By how much of itself a wait may be shorter, so that a fleet does not come back at once."""
    denied_wait: float = 5.0
    doubt: float = 30.0
    """For this long after another past was met (a wiped etcd, a backup, a replica) deletions are
    held: its writers need a moment to notice and to write again what it lacks."""
    slice_events: int = 1_000
    """No more events than this are handed on at once, except that a revision is never cut."""


@runtime_checkable
class Connected(Protocol):
    """A store that can say when it is worth trying again."""

    @property
    def connections(self) -> int: ...

    async def connected(self, *, beyond: int) -> int: ...


async def follow(
    store: Reader,
    prefix: str,
    *,
    gate: Gate | None = None,
    canary: str | None = None,
    settings: FollowSettings = FollowSettings(),  # noqa: B008 - frozen
    report: Report = lambda _: None,
) -> AsyncIterator[Sequence[Event]]:
    """One endless story of a prefix, in bounded slices. Store failures never come out of it.

    It begins with a full list: puts, then ``Synced``. Then whole revisions as they happen. When the
    past is lost it lists again: puts of everything, deletes of what vanished meanwhile, ``Synced``.
    With a ``canary`` (contract kvstore 5.3) no list is believed before that key is there. While the
    ``gate`` is closed deletions are held back, and ``Synced`` with them; when it opens, a full list
    settles them. The same holds for a while after another past was met. ``report`` gets a sentence
    while the story is interrupted, with the time of the next try, and None when it goes on.
    """
    follower = _Follower(store, prefix, gate, canary, settings, report)
    waits = Backoff(first=settings.first_wait, ceiling=settings.ceiling, jitter=settings.jitter)
    while True:
        connections = connection_of(store)
        try:
            async with ending(follower.story()) as story:
                async for told in story:
                    if follower.seen is not None:
                        waits.reset()
                    yield told
            continue
        except HistoryLost as error:
            follower.forget(doubting=isinstance(error, OtherPast))
            wait = next(waits)
            follower.interrupted(f"{error}; listing again in {wait:.1f} s")
        except Denied as error:
            wait = max(settings.denied_wait, next(waits))
            follower.interrupted(f"{error}; trying again in {wait:.0f} s")
        except StoreError as error:
            wait = next(waits)
            follower.interrupted(f"{error}; trying again in {wait:.1f} s")
        await pause(store, connections, wait)


class _Follower:
    """What one follower knows: the keys it told of, and up to which revision."""

    def __init__(
        self,
        store: Reader,
        prefix: str,
        gate: Gate | None,
        canary: str | None,
        settings: FollowSettings,
        report: Report,
    ) -> None:
        self.store = store
        self.prefix = prefix
        self.belief = Belief(gate, doubt=settings.doubt)
        self.canary = canary
        self.size = settings.slice_events
        self._report = report
        self._troubled = True
        self.known: set[str] = set()
        self.seen: Point | None = None
        self.holding = False
        self.past: int | None = None
        """The connection on which the past that we know was last seen to be the store's own."""
        self._connected = store if isinstance(store, Connected) else None
        self._pace = Pace()

    def interrupted(self, sentence: str) -> None:
        """Say why the story does not go on."""
        self._troubled = True
        self._report(f"{self.prefix}: {sentence}")

    def forget(self, *, doubting: bool) -> None:
        """The past cannot be continued."""
        self.seen = None
        if doubting:
            self.belief.begin_doubt()

    def goes_on(self) -> None:
        """Say that it does."""
        if self._troubled:
            self._troubled = False
            self._report(None)

    async def story(self) -> AsyncIterator[Sequence[Event]]:
        """List if the past is lost, then changes, until something fails or held deletions can be
        settled.
        """
        if self.seen is None:
            async with ending(self._list()) as listing:
                async for told in listing:
                    yield told
        connection = self._connection()
        try:
            async with ending(
                self.store.changes(self.prefix, after=self.seen or Point(0))
            ) as batches:
                while (batch := await self._next(batches)) is not None:
                    self.past = connection
                    self.goes_on()
                    if not batch.events:
                        self.seen = batch.point
                        continue
                    for changes in self._believed(batch):
                        began = self._pace.begin()
                        yield changes
                        await self._pace.ended(began)
                    self.seen = batch.point
        except OtherPast:
            raise
        except HistoryLost:
            self.past = connection
            raise
        self.seen = None

    async def _list(self) -> AsyncIterator[Sequence[Event]]:
        """Everything, then what vanished, then Synced: additions first, so that nothing is empty in
        between.
        """
        complete, point = False, Point(0)
        while not complete:
            await self._await_canary()
            stale, connection = set(self.known), self._connection()
            async with ending(self._read(stale)) as slices:
                async for point, puts in slices:  # noqa: B007 - the last one counts
                    if puts:
                        yield puts
            complete = await self._is_complete(point.revision)
        if self.past is not None and {connection, self._connection()} != {self.past}:
            self.forget(doubting=True)  # the past was verified on another connection than this
        self.holding = not self.belief.settles()
        if not self.holding:
            for gone in _slices(sorted(stale), self.size) if stale else ():
                began = self._pace.begin()
                self.known.difference_update(gone)
                yield [Delete(key, point.revision) for key in gone]
                await self._pace.ended(began)
            yield (Synced(point.revision),)
        self.seen = point

    async def _read(self, stale: set[str]) -> AsyncIterator[tuple[Point, Sequence[Put]]]:
        """What is there, each slice with its point; takes the keys it finds out of ``stale``."""
        async with ending(self.store.pages(self.prefix)) as pages:
            async for page in pages:
                for puts in _slices(page.entries, self.size):
                    keys = [put.key for put in puts]
                    self.known.update(keys)
                    if stale:
                        stale.difference_update(keys)
                    yield page.point, puts

    def _believed(self, batch: Batch) -> Iterator[Sequence[Change]]:
        """The batch in slices, without the deletions that are held or say nothing new."""
        since: int | None = None
        told: list[Change] = []
        for event in batch.events:
            if isinstance(event, Put):
                self.known.add(event.key)
                told.append(event)
            elif event.key in self.known:
                since = self.belief.since() if since is None else since
                if event.revision < since:
                    self.holding = True
                else:
                    self.known.remove(event.key)
                    told.append(event)
        return whole_revisions(told, self.size)

    async def _next(self, batches: AsyncIterator[Batch]) -> Batch | None:
        """The next batch; None when deletions were held and may be believed again."""
        if not self.holding:
            return await anext(batches)
        return await _unless(_awaited(batches), self.belief.wait())

    def _connection(self) -> int:
        return self._connected.connections if self._connected else 0

    async def _is_complete(self, revision: int) -> bool:
        """Did the canary stand when this revision was listed? The etcd that it was seen in may have
        been wiped before the list was read.
        """
        if self.canary is None:
            return True
        found = await self.store.get(self.canary)
        return found is not None and found.revision <= revision

    async def _await_canary(self) -> None:
        """Return when the canary is there."""
        if (key := self.canary) is None:
            return
        point = Point(0)
        async with ending(self.store.pages(key)) as pages:
            async for page in pages:
                point = page.point
                if any(one.key == key for one in page.entries):
                    return
        self.interrupted(f"waiting for {key}, which says that the list is complete")
        async with ending(self.store.changes(key, after=point)) as batches:
            async for batch in batches:
                if any(isinstance(event, Put) and event.key == key for event in batch.events):
                    return


def whole_revisions(events: Sequence[Change], size: int) -> Iterator[Sequence[Change]]:
    """Slices of about ``size`` events that never part events of one revision."""
    start = 0
    while len(events) - start > size:
        end = start + size
        while end > start and events[end - 1].revision == events[end].revision:
            end -= 1
        if end == start:  # one revision is larger than a slice: it stays whole
            end = start + size
            while end < len(events) and events[end].revision == events[start].revision:
                end += 1
        yield events[start:end]
        start = end
    if start < len(events):
        yield events[start:] if start else events


def _slices(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """At least one, which may be empty."""
    if len(items) <= size:
        yield items
        return
    for at in range(0, len(items), size):
        yield items[at : at + size]


@asynccontextmanager
async def ending(stream: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """Use a stream and end it for certain, so that what it holds is let go of now."""
    try:
        yield stream
    finally:
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()


async def _awaited(batches: AsyncIterator[Batch]) -> Batch | StoreError:
    try:
        return await anext(batches)
    except StoreError as error:
        return error


async def _unless(
    batch: Coroutine[Any, Any, Batch | StoreError], other: Coroutine[Any, Any, None]
) -> Batch | None:
    """The batch, or None when ``other`` returns first."""
    async with asyncio.TaskGroup() as race:
        wanted, stop = race.create_task(batch), race.create_task(other)
        await asyncio.wait((wanted, stop), return_when=asyncio.FIRST_COMPLETED)
        wanted.cancel()
        stop.cancel()
    if wanted.cancelled():
        return None
    result = wanted.result()
    if isinstance(result, StoreError):
        raise result
    return result


def connection_of(store: Reader) -> int:
    """The number of the present connection, 0 for a store that does not count them."""
    return store.connections if isinstance(store, Connected) else 0


async def pause(store: Reader, connections: int, seconds: float) -> None:
    """Wait; not longer than until a lost connection is up again."""
    if not isinstance(store, Connected):
        await asyncio.sleep(seconds)
        return
    try:
        async with asyncio.timeout(seconds):
            await store.connected(beyond=connections)
    except TimeoutError:
        return
