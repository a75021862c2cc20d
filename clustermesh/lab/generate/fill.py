"""Writing generated clusters into etcds, and keeping them in motion."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from clustermesh import keys
from clustermesh.apiserver.moment import stamp
from clustermesh.gojson import encode
from clustermesh.keys import Kind, Layout
from clustermesh.lab.generate.churn import Change
from clustermesh.lab.generate.world import Cluster
from kvstore.client import DeleteOp, PutOp, Store, WriteOp

BATCH = 128
BEAT = 30.0  # seconds between two heartbeats
Sent = Callable[[Sequence[Change], float], None]


def keys_of(cluster: Cluster, layout: Layout) -> Iterator[PutOp]:
    """Every key of a cluster, in its control plane's order: config, data, canaries."""
    yield PutOp(keys.cluster_config(cluster.name), encode(cluster.config(layout)))
    for kind in Kind:
        prefix = keys.prefix(kind, layout, cluster.name)
        for name, value in cluster.entries(kind):
            yield PutOp(prefix + name, value)
    now = stamp(time.time())
    for kind in Kind:
        yield PutOp(keys.canary(kind, layout, cluster.name), now)


async def fill(store: Store, clusters: Iterable[Cluster], layout: Layout) -> int:
    """Write clusters; how many keys. In the state layout an etcd has room for one only."""
    written = 0
    for cluster in clusters:
        batch: list[WriteOp] = []
        for op in keys_of(cluster, layout):
            batch.append(op)
            if len(batch) == BATCH:
                await store.commit(batch)
                written, batch = written + len(batch), []
        await store.commit(batch)
        written += len(batch)
    await beat(store)
    return written + 1


async def beat(store: Store) -> None:
    """One heartbeat."""
    await store.commit([PutOp(keys.HEARTBEAT, stamp(time.time()))])


async def churn(
    stores: Mapping[str, Store],
    changes: Iterable[Change],
    layout: Layout,
    *,
    seconds: float,
    sent: Sent = lambda *_: None,
) -> int:
    """Live a story for so long, in the etcds of each cluster by name; how many changes.

    What is due at once in one etcd is one transaction. ``sent`` hears of changes and of the moment
    (``time.perf_counter``) just before they are written.
    """
    began, count = time.perf_counter(), 0
    due = _Due(stores, layout, sent)
    async with asyncio.TaskGroup() as tasks:
        beats = [tasks.create_task(_beats(store)) for store in {*stores.values()}]
        for change in changes:
            if change.at > seconds:
                break
            if began + change.at > time.perf_counter():
                await due.flush()
                await asyncio.sleep(max(0.0, began + change.at - time.perf_counter()))
            if not due.add(change):
                await due.flush()
                due.add(change)
            count += 1
        await due.flush()
        for each in beats:
            each.cancel()
    return count


class _Due:
    """What is to be written at once: for each etcd a transaction of distinct keys."""

    def __init__(self, stores: Mapping[str, Store], layout: Layout, sent: Sent) -> None:
        self._stores = stores
        self._layout = layout
        self._sent = sent
        self._due: dict[Store, dict[tuple[str, Kind, str], Change]] = {}

    def add(self, change: Change) -> bool:
        """False when it has to wait for the next transaction."""
        batch = self._due.setdefault(self._stores[change.cluster.name], {})
        what = (change.cluster.name, change.kind, change.name)
        if what in batch or len(batch) == BATCH:
            return False
        batch[what] = change
        return True

    async def flush(self) -> None:
        """Write it."""
        due, self._due = self._due, {}
        async with asyncio.TaskGroup() as tasks:
            for store, batch in due.items():
                tasks.create_task(_write(store, [*batch.values()], self._layout, self._sent))


async def _beats(store: Store) -> None:
    while True:
        await beat(store)
        await asyncio.sleep(BEAT)


async def _write(store: Store, batch: Sequence[Change], layout: Layout, sent: Sent) -> None:
    ops: list[WriteOp] = []
    for change in batch:
        key = keys.prefix(change.kind, layout, change.cluster.name) + change.name
        ops.append(DeleteOp(key) if change.value is None else PutOp(key, change.value))
    sent(batch, time.perf_counter())
    await store.commit(ops)
