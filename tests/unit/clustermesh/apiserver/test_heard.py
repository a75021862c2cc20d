"""Events of a watch are counted by scope and by what happened to the key."""

import asyncio
from contextlib import aclosing

from prometheus_client import CollectorRegistry

from clustermesh.apiserver.heard import Heard
from clustermesh.apiserver.measured import PREFIX
from kvstore.client import DeleteOp, PutOp
from kvstore.memory import MemoryStore

NAME = PREFIX + "kvstore_events_queue_seconds"
KEY = "cilium/.heartbeat"


async def test_each_event_is_timed_until_somebody_took_it() -> None:
    registry, store = CollectorRegistry(), MemoryStore()
    heard = Heard(store, registry)
    await store.commit([PutOp(KEY, b"1")])
    revision = 0
    async with aclosing(heard.pages(KEY)) as pages:
        async for page in pages:
            revision = page.revision
    await store.commit([PutOp(KEY, b"2")])
    await store.commit([DeleteOp(KEY)])
    await store.commit([PutOp(KEY, b"3")])
    async with aclosing(heard.changes(KEY, after=revision)) as batches:
        async for batch in batches:
            if batch.revision == store.revision:
                break
            await asyncio.sleep(0.01)
    counts = counted(registry, "_count")
    assert counts == {"create": 1, "listDone": 1, "modify": 1, "delete": 1}
    assert counted(registry, "_sum")["modify"] >= 0.01


def counted(registry: CollectorRegistry, suffix: str) -> dict[str, float]:
    return {
        sample.labels["action"]: sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == NAME + suffix and sample.labels["scope"] == "cilium/.hear"
    }
