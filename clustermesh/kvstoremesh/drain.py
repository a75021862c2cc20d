"""The end of a cluster's copy: everything under its prefixes, canaries first."""

import asyncio

import structlog

from clustermesh.kvstoremesh import places
from kvstore.backoff import Backoff
from kvstore.client import DeleteOp, Store, StoreError
from kvstore.watch import ending

log = structlog.get_logger()
BATCH = 128  # deletions in a transaction: readers get them in slices that they can digest


async def clear(store: Store, cluster: str, *, backoff: Backoff) -> None:
    """Remove what the cache holds of a cluster, in the order of contract kvstore 5.5.

    What fails is tried again until it is done. Nothing of another cluster is touched.
    """
    for prefix in places.owned(cluster):
        while True:
            try:
                await _remove(store, prefix)
            except StoreError as error:
                wait = next(backoff)
                log.warning("removal of a copy interrupted", reason=str(error), retry_in=wait)
                await asyncio.sleep(wait)
            else:
                break


async def _remove(store: Store, prefix: str) -> None:
    found: list[DeleteOp] = []
    async with ending(store.pages(prefix)) as pages:
        async for page in pages:
            found += (DeleteOp(entry.key) for entry in page.entries)
    for at in range(0, len(found), BATCH):
        await store.commit(found[at : at + BATCH])
