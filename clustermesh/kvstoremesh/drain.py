"""Steps that must succeed in the end; the removal of a cluster's copy is made of them."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from clustermesh.kvstoremesh import places
from kvstore.backoff import Backoff
from kvstore.client import DeleteOp, Store, StoreError
from kvstore.watch import Report, ending

BATCH = 128  # deletions in a transaction: readers get them in slices that they can digest


async def insist(
    store: Store, step: Callable[[], Awaitable[object]], *, backoff: Backoff, report: Report
) -> None:
    """Do the step until the store lets it succeed; a new connection is tried at once."""
    backoff.reset()
    while True:
        met = store.connections
        try:
            await step()
        except StoreError as error:
            wait = next(backoff)
            report(f"{error}; trying again in {wait:.1f} s")
            try:
                async with asyncio.timeout(wait):
                    await store.connected(beyond=met)
            except TimeoutError:
                continue
        else:
            report(None)
            return


async def clear(store: Store, cluster: str, *, backoff: Backoff, report: Report) -> None:
    """Remove what the cache holds of a cluster, in the order of contract kvstore 5.5.

    Nothing of another cluster is touched.
    """
    for prefix in places.owned(cluster):
        await insist(store, partial(_remove, store, prefix), backoff=backoff, report=report)


async def _remove(store: Store, prefix: str) -> None:
    found: list[DeleteOp] = []
    async with ending(store.pages(prefix)) as pages:
        async for page in pages:
            found += (DeleteOp(entry.key) for entry in page.entries)
    for at in range(0, len(found), BATCH):
        await store.commit(found[at : at + BATCH])
