"""A store that times what passes through it (contract kvstore 8, operations)."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from prometheus_client import CollectorRegistry, Histogram

from kvstore.client import (
    Batch,
    DeleteOp,
    DeletePrefixOp,
    Entry,
    Page,
    PutOp,
    Store,
    StoreError,
    WriteOp,
)

PREFIX: Final = "cilium_clustermesh_apiserver_"
SHORT: Final = 12  # characters of a key that names no kind


def scope(key: str) -> str:
    """``nodes/v1`` for a fact's key; the beginning of the key for others (contract kvstore 8)."""
    parts = key.split("/", 4)
    if len(parts) > 3 and parts[0] == "cilium" and parts[1] in {"state", "cache"}:
        return f"{parts[2]}/{parts[3]}"
    return key[:SHORT]


class Measured:
    """A ``Store`` in front of another; reads of one key and writes are timed."""

    def __init__(self, store: Store, registry: CollectorRegistry) -> None:
        self._store = store
        self.errors: Counter[str] = Counter()
        """Failed operations by scope."""
        self._seconds = Histogram(
            PREFIX + "kvstore_operations_duration_seconds",
            "Duration of kvstore operations",
            ["scope", "kind", "action", "outcome"],
            registry=registry,
        )

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

    def changes(self, prefix: str, *, after: int) -> AsyncIterator[Batch]:
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
        with self._timed((scope(op.key), "set", "UpdateIfDifferent")):
            return await self._store.swap(op, expected=expected)

    async def grant(self, ttl: float) -> int:
        """Timed."""
        with self._timed(("lease", "set", "Grant")):
            return await self._store.grant(ttl)

    async def keep_alive(self, lease: int) -> float:
        """Timed."""
        with self._timed(("lease", "set", "KeepAlive")):
            return await self._store.keep_alive(lease)

    async def revoke(self, lease: int) -> None:
        """Timed."""
        with self._timed(("lease", "delete", "Revoke")):
            await self._store.revoke(lease)

    @contextmanager
    def _timed(self, *operations: tuple[str, str, str]) -> Iterator[None]:
        began = time.perf_counter()
        outcome = "success"
        try:
            yield
        except StoreError:
            outcome = "error"
            self.errors.update({name for name, _, _ in operations})
            raise
        finally:
            took = time.perf_counter() - began
            for operation in operations:
                self._seconds.labels(*operation, outcome).observe(took)


def _labels(op: WriteOp) -> tuple[str, str, str]:
    match op:
        case PutOp(key):
            return scope(key), "set", "Update"
        case DeleteOp(key):
            return scope(key), "delete", "Delete"
        case DeletePrefixOp(prefix):
            return scope(prefix), "delete", "DeletePrefix"
