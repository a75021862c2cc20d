"""What a watch promises, each promise by name, checked against the history it should have told."""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from kvstore.client import Batch, Entry, Page, Point, Reader
from kvstore.events import Change, Put
from kvstore.watch import ending


@dataclass
class Listing:
    """A list that was read to its end."""

    prefix: str
    revision: int
    state: dict[str, bytes]


@dataclass
class Watching:
    """One watch, from where it was asked for to where it broke."""

    prefix: str
    after: int
    batches: list[Batch] = field(default_factory=list)


class Recording:
    """A reader that writes down everything it is told, and otherwise stays out of the way."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.listings: list[Listing] = []
        self.watches: list[Watching] = []

    async def get(self, key: str) -> Entry | None:
        return await self._reader.get(key)

    async def pages(self, prefix: str) -> AsyncIterator[Page]:
        state: dict[str, bytes] = {}
        revision = 0
        async with ending(self._reader.pages(prefix)) as pages:
            async for page in pages:
                assert revision in (0, page.revision), "pages of one listing are of one revision"
                revision = page.revision
                state |= {entry.key: entry.value for entry in page.entries}
                yield page
        self.listings.append(Listing(prefix, revision, state))

    async def changes(self, prefix: str, *, after: int | Point) -> AsyncIterator[Batch]:
        watch = Watching(prefix, after.revision if isinstance(after, Point) else after)
        self.watches.append(watch)
        async with ending(self._reader.changes(prefix, after=after)) as batches:
            async for batch in batches:
                watch.batches.append(batch)
                yield batch


class History:
    """What happened to one etcd: every change, in order, each revision whole."""

    def __init__(self, changes: Iterable[Change] = (), until: int = 0) -> None:
        self.changes = list(changes)
        self.until = max(until, self.changes[-1].revision if self.changes else 0)

    def between(self, prefix: str, after: int, until: int) -> list[Change]:
        """Changes under a prefix beyond ``after``, up to and with ``until``."""
        return [
            change
            for change in self.changes
            if after < change.revision <= until and change.key.startswith(prefix)
        ]

    def state(self, prefix: str, revision: int) -> dict[str, bytes]:
        """What was there at a revision."""
        state: dict[str, bytes] = {}
        for change in self.between(prefix, 0, revision):
            if isinstance(change, Put):
                state[change.key] = change.value
            else:
                state.pop(change.key, None)
        return state


def broken_promises(record: Recording, histories: Sequence[History]) -> list[str]:
    """Every promise that was not kept. What was told must fit one history, whichever it was."""
    broken: list[str] = []
    for listing in record.listings:
        broken += _best(list(_list_promises(listing, history)) for history in histories)
    for watch in record.watches:
        broken += _best(list(_watch_promises(watch, history)) for history in histories)
    return broken


def _best(found: Iterable[list[str]]) -> list[str]:
    return min(found, key=len)


def _list_promises(listing: Listing, history: History) -> Iterator[str]:
    if listing.state != history.state(listing.prefix, listing.revision):
        yield f"true: the list at {listing.revision} is not what was there"


def _watch_promises(watch: Watching, history: History) -> Iterator[str]:
    told = [event for batch in watch.batches for event in batch.events]
    reached = max((batch.revision for batch in watch.batches), default=watch.after)
    wanted = history.between(watch.prefix, watch.after, reached)
    yield from _ordered(watch, told)
    yield from _unique(told)
    yield from _atomic(watch, history)
    yield from _bookmarkable(watch, history)
    if sorted(told, key=_place) != sorted(wanted, key=_place):
        yield (
            f"reliable: from {watch.after} to {reached} {len(wanted)} changes happened,"
            f" {len(told)} were told"
        )


def _ordered(watch: Watching, told: Sequence[Change]) -> Iterator[str]:
    for before, after in pairwise(told):
        if after.revision < before.revision:
            yield f"ordered: {after} was told after {before}"
    for event in told[:1]:
        if event.revision <= watch.after:
            yield f"resumable: {event} is not beyond {watch.after}"


def _unique(told: Sequence[Change]) -> Iterator[str]:
    seen: set[tuple[str, int]] = set()
    for event in told:
        if _place(event) in seen:
            yield f"unique: {event} was told twice"
        seen.add(_place(event))


def _atomic(watch: Watching, history: History) -> Iterator[str]:
    sizes: dict[int, int] = {}
    for change in history.changes:
        if change.key.startswith(watch.prefix):
            sizes[change.revision] = sizes.get(change.revision, 0) + 1
    for batch in watch.batches:
        for revision in {event.revision for event in batch.events}:
            told = sum(event.revision == revision for event in batch.events)
            if told != sizes.get(revision, 0):
                yield f"atomic: revision {revision} was told in part"


def _bookmarkable(watch: Watching, history: History) -> Iterator[str]:
    """A mark at a revision promises that everything up to it has been told."""
    told = 0
    for batch in watch.batches:
        told += len(batch.events)
        if told < len(history.between(watch.prefix, watch.after, batch.revision)):
            yield f"bookmarkable: the mark {batch.revision} came too early"
            return


def _place(event: Change) -> tuple[str, int]:
    return event.key, event.revision


def states_agree(picture: Mapping[str, bytes], entries: Iterable[Entry]) -> bool:
    """Is a follower's picture what the store holds?"""
    return dict(picture) == {entry.key: entry.value for entry in entries}
