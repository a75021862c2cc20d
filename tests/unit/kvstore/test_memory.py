"""The in-memory store: the contract of every store, and the accidents only it can have."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from kvstore.client import Denied, HistoryLost, PutOp, Store, Unavailable
from kvstore.events import Delete
from kvstore.memory import MemoryStore
from kvstore.watch import ending
from tests.support.store_contract import StoreContract, end_of, everything


class TestMemory(StoreContract):
    @asynccontextmanager
    async def open(self, **settings: object) -> AsyncIterator[Store]:
        pages = settings.get("first_page_keys", 1000)
        assert isinstance(pages, int)
        yield MemoryStore(page_keys=pages)

    async def compact(self, store: Store, revision: int) -> None:
        assert isinstance(store, MemoryStore)
        store.compact(revision)


async def test_an_outage_fails_everything_and_cuts_watches() -> None:
    store = MemoryStore()
    async with ending(store.changes("", after=1)) as batches:
        await anext(batches)
        store.outage()
        with pytest.raises(Unavailable):
            await anext(batches)
    for call in (store.get("a"), store.commit([PutOp("a", b"")]), store.grant(1)):
        with pytest.raises(Unavailable):
            await call
    store.heal()
    assert await store.get("a") is None
    assert store.connections == 2


async def test_an_outage_may_say_another_word() -> None:
    store = MemoryStore()
    store.outage(Denied("no role"))
    with pytest.raises(Denied, match="no role"):
        await store.get("a")


async def test_leases_end_when_time_passes() -> None:
    store = MemoryStore()
    lease = await store.grant(10)
    revision = await store.commit([PutOp("a", b"", lease)])
    store.advance(9)
    assert await store.keep_alive(lease) == 10
    store.advance(9)
    assert await store.get("a") is not None
    store.advance(2)
    async with ending(store.changes("", after=revision)) as batches:
        await anext(batches)
        assert (await anext(batches)).events == [Delete("a", revision + 1)]


async def test_a_restored_backup_is_another_past_even_when_it_has_caught_up() -> None:
    store = MemoryStore()
    await store.commit([PutOp("a", b"1")])
    backup = store.snapshot()
    await store.commit([PutOp("a", b"2")])
    known = await end_of(store, "")
    store.restore(backup)
    for _ in range(5):
        await store.commit([PutOp("b", b"x")])
    assert store.revision > known.revision
    async with ending(store.changes("", after=known)) as batches:
        with pytest.raises(HistoryLost):
            await anext(batches)
    (entries, _), now = await everything(store, ""), await end_of(store, "")
    assert [(one.key, one.value) for one in entries] == [("a", b"1"), ("b", b"x")]
    async with ending(store.changes("", after=now)) as batches:
        assert (await anext(batches)).point == now


async def test_another_etcd_has_another_id_and_nothing_in_it() -> None:
    store = MemoryStore(cluster_id=7)
    await store.commit([PutOp("a", b"1")])
    known = await end_of(store, "")
    store.replace_cluster_id(8)
    assert store.cluster_id == 8
    async with ending(store.changes("", after=known)) as batches:
        with pytest.raises(HistoryLost):
            await anext(batches)
    assert await everything(store, "") == ([], 1)
