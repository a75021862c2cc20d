"""A store in memory with etcd's manners: revisions, leases, compaction, and accidents on demand."""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence

import msgspec

from kvstore.client import (
    Batch,
    Conflict,
    DeleteOp,
    DeletePrefixOp,
    Entry,
    HistoryLost,
    LeaseGone,
    OtherPast,
    Page,
    Point,
    PutOp,
    Refused,
    StoreError,
    Unavailable,
    WriteOp,
)
from kvstore.events import Change, Delete, shown

MAX_OPS = 128
MAX_REQUEST = 3 << 19
"""What etcd takes in one request: 1.5 MiB."""


class Snapshot(msgspec.Struct, frozen=True):
    """What a backup holds."""

    entries: dict[str, Entry]
    leases: dict[int, tuple[float, float]]
    revision: int


class MemoryStore:
    """Server and client in one. Time passes only by ``advance``, failures only by the methods named
    after them.
    """

    def __init__(self, *, cluster_id: int = 1, page_keys: int = 1000) -> None:
        self._entries: dict[str, Entry] = {}
        self._history: list[Batch] = []
        self._revision = 1
        self._compacted = 0
        self._leases: dict[int, tuple[float, float]] = {}
        """Lease -> (time to live, when it ends)."""
        self._clock = 0.0
        self._last_lease = 0
        self._failure: StoreError | None = None
        self._past = object()
        self._page_keys = page_keys
        self._moved = asyncio.Event()
        self._cluster_id = cluster_id
        self._connections = 1

    @property
    def cluster_id(self) -> int:
        return self._cluster_id

    @property
    def connections(self) -> int:
        return self._connections

    @property
    def revision(self) -> int:
        """Of the last write."""
        return self._revision

    async def connected(self, *, beyond: int) -> int:
        while self._connections <= beyond:
            await self._moved.wait()
        return self._connections

    # What happens to a store

    def outage(self, failure: StoreError | None = None) -> None:
        """From now on nothing answers (or everything fails with ``failure``); watches that run are
        cut.
        """
        self._failure = failure or Unavailable("the store is out of order")
        self._move()

    def heal(self) -> None:
        """It answers again, over a new connection."""
        if self._failure is not None:
            self._failure = None
            self._reconnect()

    def compact(self, revision: int | None = None) -> None:
        """Forget the history up to a revision, the present one unless told otherwise."""
        self._compacted = max(self._compacted, self._revision if revision is None else revision)
        self._history = [batch for batch in self._history if batch.revision > self._compacted]

    def snapshot(self) -> Snapshot:
        """A backup."""
        return Snapshot(dict(self._entries), dict(self._leases), self._revision)

    def restore(self, snapshot: Snapshot) -> None:
        """Become what the backup holds; what happened since never happened."""
        self._entries, self._leases = dict(snapshot.entries), dict(snapshot.leases)
        self._revision, self._compacted, self._history = snapshot.revision, snapshot.revision, []
        self._new_past()

    def replace_cluster_id(self, cluster_id: int) -> None:
        """Another, empty etcd answers from now on."""
        self._cluster_id = cluster_id
        self._entries, self._leases = {}, {}
        self._revision, self._compacted, self._history = 1, 0, []
        self._new_past()

    def advance(self, seconds: float) -> None:
        """Let time pass: leases that were not kept alive end, each in a revision of its own."""
        self._clock += seconds
        for lease in [lease for lease, (_, ends) in self._leases.items() if ends <= self._clock]:
            self._end(lease)

    # Reading

    async def get(self, key: str) -> Entry | None:
        await self._turn()
        return self._entries.get(key)

    async def pages(self, prefix: str) -> AsyncIterator[Page]:
        await self._turn()
        connection, revision, past = self._connections, self._revision, self._past
        keys = sorted((key for key in self._entries if key.startswith(prefix)), key=_bytes)
        found = [self._entries[key] for key in keys]
        for at in range(0, max(1, len(found)), self._page_keys):
            await self._turn(connection)
            if self._compacted > revision:
                raise HistoryLost(f"the history before revision {self._compacted} was compacted")
            yield Page(found[at : at + self._page_keys], revision, past)

    async def changes(self, prefix: str, *, after: int | Point) -> AsyncIterator[Batch]:
        await self._turn()
        connection = self._connections
        told, past = (after.revision, after.past) if isinstance(after, Point) else (after, None)
        if told > self._revision or past not in (None, self._past):
            raise OtherPast(f"revision {told} is not of this history")
        if told >= self._compacted:
            yield Batch((), told, self._past)
        while True:
            await self._turn(connection)
            if told < self._compacted:
                raise HistoryLost(f"the history before revision {self._compacted} was compacted")
            batch = self._next(prefix, told)
            if batch is None:
                await self._moved.wait()
                continue
            told = batch.revision
            yield Batch(batch.events, told, self._past)

    # Writing

    async def commit(self, ops: Sequence[WriteOp]) -> int:
        await self._turn()
        self._check(ops)
        return self._apply(ops)

    async def create(self, op: PutOp) -> int:
        return await self.swap(op, expected=0)

    async def swap(self, op: PutOp, *, expected: int) -> int:
        await self._turn()
        self._check([op])
        found = self._entries.get(op.key)
        if (found.revision if found else 0) != expected:
            raise Conflict(f"{shown(op.key)} is not what it was at revision {expected}")
        return self._apply([op])

    async def grant(self, ttl: float) -> int:
        await self._turn()
        self._last_lease += 1
        self._leases[self._last_lease] = (ttl, self._clock + ttl)
        return self._last_lease

    async def keep_alive(self, lease: int) -> float:
        await self._turn()
        if lease not in self._leases:
            return 0.0
        ttl = self._leases[lease][0]
        self._leases[lease] = (ttl, self._clock + ttl)
        return ttl

    async def revoke(self, lease: int) -> None:
        await self._turn()
        if lease in self._leases:
            self._end(lease)

    # Inside

    async def _turn(self, connection: int | None = None) -> None:
        """What a round trip is here: others run, and the store may be gone."""
        await asyncio.sleep(0)
        if self._failure is not None:
            raise type(self._failure)(str(self._failure))
        if connection is not None and connection != self._connections:
            raise Unavailable("the connection was lost")

    def _check(self, ops: Sequence[WriteOp]) -> None:
        if len(ops) > MAX_OPS:
            raise Refused(f"{len(ops)} operations in one transaction, at most {MAX_OPS} are taken")
        keys = [op.key for op in ops if not isinstance(op, DeletePrefixOp)]
        if len(set(keys)) < len(keys):
            raise Refused("duplicate key given in txn request")
        if any(not key for key in keys):
            raise Refused("key is not provided")
        if sum(len(op.value) for op in ops if isinstance(op, PutOp)) > MAX_REQUEST:
            raise Refused("request is too large")
        for op in ops:
            if isinstance(op, PutOp) and op.lease and op.lease not in self._leases:
                raise LeaseGone(f"requested lease {op.lease} not found")

    def _apply(self, ops: Sequence[WriteOp]) -> int:
        revision = self._revision + 1
        events: list[Change] = []
        for op in ops:
            match op:
                case PutOp(key, value, lease):
                    self._entries[key] = Entry(key, value, revision, lease)
                    events.append(self._entries[key])
                case DeleteOp(key):
                    events += self._drop([key], revision)
                case DeletePrefixOp(prefix):
                    events += self._drop(
                        [key for key in self._entries if key.startswith(prefix)], revision
                    )
        if events:
            self._revision = revision
            self._history.append(Batch(events, revision))
            self._move()
        return self._revision

    def _drop(self, keys: Sequence[str], revision: int) -> list[Change]:
        return [
            Delete(key, revision)
            for key in sorted(keys)
            if self._entries.pop(key, None) is not None
        ]

    def _end(self, lease: int) -> None:
        del self._leases[lease]
        events = self._drop(
            [key for key, entry in self._entries.items() if entry.lease == lease],
            self._revision + 1,
        )
        if events:
            self._revision += 1
            self._history.append(Batch(events, self._revision))
            self._move()

    def _next(self, prefix: str, told: int) -> Batch | None:
        """The next whole revision that touches the prefix, or a mark that none did."""
        at = bisect_right(self._history, told, key=_revision)
        for batch in self._history[at:]:
            events = [event for event in batch.events if event.key.startswith(prefix)]
            if events:
                return Batch(events, batch.revision)
        return Batch((), self._revision) if self._revision > told else None

    def _new_past(self) -> None:
        self._past = object()
        self._reconnect()

    def _reconnect(self) -> None:
        self._connections += 1
        self._move()

    def _move(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()


def _revision(batch: Batch) -> int:
    return batch.revision


def _bytes(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")
