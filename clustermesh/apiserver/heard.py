"""A reader that times how long events wait until somebody takes them (contract kvstore 8)."""

import time
from collections.abc import AsyncIterator
from typing import Final

from prometheus_client import CollectorRegistry, Histogram

from clustermesh.apiserver.measured import PREFIX, scope
from kvstore.client import Batch, Entry, Page, Point, Store
from kvstore.events import Put
from kvstore.watch import ending

BUCKETS: Final = (0.002, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)


class Heard:
    """A ``Reader`` in front of another, for those who follow few keys: it remembers them."""

    def __init__(self, store: Store, registry: CollectorRegistry) -> None:
        self._store = store
        self._known: set[str] = set()
        self._seconds = Histogram(
            PREFIX + "kvstore_events_queue_seconds",
            "Seconds waited before a received event was queued",
            ["scope", "action"],
            buckets=BUCKETS,
            registry=registry,
        )

    @property
    def connections(self) -> int:
        """As the other says."""
        return self._store.connections

    async def connected(self, *, beyond: int) -> int:
        """As the other says."""
        return await self._store.connected(beyond=beyond)

    async def get(self, key: str) -> Entry | None:
        """As the other says."""
        return await self._store.get(key)

    async def pages(self, prefix: str) -> AsyncIterator[Page]:
        """A list: its entries are created, then it is done."""
        async with ending(self._store.pages(prefix)) as pages:
            async for page in pages:
                began = time.perf_counter()
                yield page
                took = time.perf_counter() - began
                for entry in page.entries:
                    self._known.add(entry.key)
                    self._seconds.labels(scope(entry.key), "create").observe(took)
        self._seconds.labels(scope(prefix), "listDone").observe(0.0)

    async def changes(self, prefix: str, *, after: int | Point) -> AsyncIterator[Batch]:
        """A watch; whoever reads it takes the next batch when this one is dealt with."""
        async with ending(self._store.changes(prefix, after=after)) as batches:
            async for batch in batches:
                began = time.perf_counter()
                yield batch
                took = time.perf_counter() - began
                for event in batch.events:
                    action = self._action(event.key, there=isinstance(event, Put))
                    self._seconds.labels(scope(event.key), action).observe(took)

    def _action(self, key: str, *, there: bool) -> str:
        known = key in self._known
        if not there:
            self._known.discard(key)
            return "delete"
        self._known.add(key)
        return "modify" if known else "create"
