"""A store that times what passes through it (contract kvstore 8, operations)."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Histogram

from kvstore.client import (
    Batch,
    DeleteOp,
    DeletePrefixOp,
    Entry,
    Page,
    Point,
    PutOp,
    Store,
    StoreError,
    WriteOp,
)

PREFIX: Final = "cilium_clustermesh_apiserver_"
SHORT: Final = 12  # characters of a key with few parts
BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

Operation = tuple[str, str, str]
"""Scope, kind and action, as the label values are called."""
LEASE: Final = ("lease", "set", "AcquireLease")


def scope(key: str) -> str:
    """The third and fourth part of a key, or its beginning when it has fewer (contract kvstore 8):
    ``nodes/v1``, ``paris/cilium`` for canaries, ``v1/services`` for the private tree.
    """
    parts = key.split("/", 4)
    return f"{parts[2]}/{parts[3]}" if len(parts) > 3 else key[:SHORT]


class Measured:
    """A ``Store`` in front of another; reads of one key and writes are timed."""

    def __init__(self, store: Store, registry: CollectorRegistry, *, prefix: str = PREFIX) -> None:
        self._store = store
        self.errors: Counter[str] = Counter()
        """Failed operations by scope."""
        self.succeeded = 0
        self.failed = 0
        self.in_flight = 0
        self.seconds = 0.0
        """All of the time that requests took."""
        self._seconds = Histogram(
            prefix + "kvstore_operations_duration_seconds",
            "Duration of kvstore operations",
            ["scope", "kind", "action", "outcome"],
            buckets=BUCKETS,
            registry=registry,
        )
        self._clocks: dict[tuple[Operation, str], Histogram] = {}

    @property
    def cluster_id(self) -> int:
        """As the other says."""
        return self._store.cluster_id

    @property
    def connections(self) -> int:
        """As the other says."""
        return self._store.connections

    async def connected(self, *, beyond: int) -> int:
        """As the other says."""
        return await self._store.connected(beyond=beyond)

    async def get(self, key: str) -> Entry | None:
        """Timed."""
        with self._timed((scope(key), "read", "Get")):
            return await self._store.get(key)

    def pages(self, prefix: str) -> AsyncIterator[Page]:
        """As the other says."""
        return self._store.pages(prefix)

    def changes(self, prefix: str, *, after: int | Point) -> AsyncIterator[Batch]:
        """As the other says."""
        return self._store.changes(prefix, after=after)

    async def commit(self, ops: Sequence[WriteOp]) -> int:
        """Timed once for each scope and kind of operation in the transaction."""
        with self._timed(*{_labels(op) for op in ops}):
            return await self._store.commit(ops)

    async def create(self, op: PutOp) -> int:
        """Timed."""
        with self._timed((scope(op.key), "set", "CreateOnly")):
            return await self._store.create(op)

    async def swap(self, op: PutOp, *, expected: int) -> int:
        """Timed."""
        with self._timed((scope(op.key), "set", "Update")):
            return await self._store.swap(op, expected=expected)

    async def grant(self, ttl: float) -> int:
        """Timed."""
        with self._timed(LEASE):
            return await self._store.grant(ttl)

    async def keep_alive(self, lease: int) -> float:
        """Timed."""
        with self._timed(("lease", "set", "KeepAlive")):
            return await self._store.keep_alive(lease)

    async def revoke(self, lease: int) -> None:
        """Timed."""
        with self._timed(("lease", "delete", "Revoke")):
            await self._store.revoke(lease)

    def begin(self) -> None:
        """One more operation is under way."""
        self.in_flight += 1

    def end(self, operations: Iterable[Operation], took: float, failure: object) -> None:
        """It is over, after so many seconds; with which failure, if any."""
        self.in_flight -= 1
        self.seconds += took
        if failure is None:
            self.succeeded += 1
        elif isinstance(failure, StoreError):
            self.failed += 1
            self.errors.update({name for name, _, _ in operations})
        outcome = "error" if isinstance(failure, StoreError) else "success"
        for operation in operations:
            self._clock(operation, outcome).observe(took)

    def _clock(self, operation: Operation, outcome: str) -> Histogram:
        """Where its duration goes; looking it up by its labels takes as long as a small write."""
        found = self._clocks.get((operation, outcome))
        if found is None:
            found = self._seconds.labels(*operation, outcome)
            self._clocks[operation, outcome] = found
        return found

    def _timed(self, *operations: Operation) -> "_Timed":
        return _Timed(self, operations)


class _Timed:
    """One operation while it is under way."""

    __slots__ = ("_began", "_measured", "_operations")

    def __init__(self, measured: Measured, operations: tuple[Operation, ...]) -> None:
        self._measured = measured
        self._operations = operations

    def __enter__(self) -> None:
        self._measured.begin()
        self._began = time.perf_counter()

    def __exit__(self, _kind: object, failure: object, _trace: object) -> None:
        took = time.perf_counter() - self._began
        self._measured.end(self._operations, took, failure)


def _labels(op: WriteOp) -> Operation:
    match op:
        case PutOp(key):
            return scope(key), "set", "Update"
        case DeleteOp(key):
            return scope(key), "delete", "Delete"
        case DeletePrefixOp(prefix):
            return scope(prefix), "delete", "DeletePrefix"
