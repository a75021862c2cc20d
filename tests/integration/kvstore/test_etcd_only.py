"""What only a real etcd can show: large replies, fragments, slow readers, marks, limits."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import pytest

from kvstore.client import PutOp
from kvstore.config import MIB
from kvstore.etcd import EtcdStore, open_etcd
from kvstore.watch import ending, follow
from tests.support.etcd import Etcd
from tests.support.store_contract import everything, first_changes

_numbers = count()


@pytest.fixture
def prefix() -> str:
    return f"only/{next(_numbers)}/"


@asynccontextmanager
async def filled(
    etcd: Etcd, prefix: str, *, values: int, size: int, **settings: object
) -> AsyncIterator[EtcdStore]:
    async with open_etcd(etcd.config()) as store:
        for at in range(values):
            await store.commit([PutOp(f"{prefix}{at:05}", bytes(size))])
    async with open_etcd(etcd.config(**settings)) as store:
        yield store


async def test_a_page_that_is_too_large_is_asked_for_in_smaller_ones(
    shared_etcd: Etcd, prefix: str
) -> None:
    async with filled(
        shared_etcd, prefix, values=40, size=200_000, max_message_bytes=1 * MIB
    ) as store:
        entries, _ = await everything(store, prefix)
        assert [len(entry.value) for entry in entries] == [200_000] * 40


async def test_a_neighbours_many_keys_are_neither_read_nor_told(
    shared_etcd: Etcd, prefix: str
) -> None:
    """A million of them: tests/soak/kvstore/test_million.py."""
    places = [f"{prefix}{name}/" for name in ("rom", "rome", "romeo")]
    async with open_etcd(shared_etcd.config(page_keys=50, first_page_keys=50)) as store:
        for start in range(0, 12_800, 128):
            await store.commit(
                [PutOp(f"{places[0]}{at}", b"x" * 100) for at in range(start, start + 64)]
                + [PutOp(f"{places[2]}{at}", b"x" * 100) for at in range(start, start + 64)]
            )
        await store.commit([PutOp(f"{places[1]}own", b"mine")])
        pages = [page async for page in store.pages(places[1])]
        assert [[entry.key for entry in page.entries] for page in pages] == [[f"{places[1]}own"]]
        async with ending(store.changes(places[1], after=pages[0].point)) as batches:
            await store.commit([PutOp(f"{place}new", b"") for place in places])
            assert [it.key for it in await first_changes(batches, 1)] == [f"{places[1]}new"]


async def test_replies_beyond_four_megabytes_are_taken(shared_etcd: Etcd, prefix: str) -> None:
    async with filled(shared_etcd, prefix, values=60, size=200_000) as store:
        entries, _ = await everything(store, prefix)
        assert len(entries) == 60


async def test_a_large_past_comes_in_fragments_and_whole(shared_etcd: Etcd, prefix: str) -> None:
    """Without fragments this reply would be larger than the client takes."""
    async with filled(
        shared_etcd, prefix, values=30, size=300_000, max_message_bytes=3 * MIB
    ) as store:
        entries, now = await everything(store, prefix)
        async with ending(store.changes(prefix, after=entries[0].revision - 1)) as batches:
            changes = await first_changes(batches, 30)
    assert [change.key for change in changes] == [entry.key for entry in entries]
    assert changes[-1].revision <= now


async def test_a_slow_reader_loses_nothing_and_delays_nobody(
    shared_etcd: Etcd, prefix: str
) -> None:
    async with open_etcd(shared_etcd.config(watch_backlog=20)) as store:
        _, revision = await everything(store, prefix)
        slow, quick = f"{prefix}slow/", f"{prefix}quick/"
        async with (
            ending(store.changes(slow, after=revision)) as late,
            ending(store.changes(quick, after=revision)) as early,
        ):
            await anext(late)
            for at in range(200):
                await store.commit([PutOp(f"{slow}{at:03}", b"")])
            await store.commit([PutOp(f"{quick}a", b"")])
            assert len(await first_changes(early, 1)) == 1
            keys = [change.key for change in await first_changes(late, 200)]
            assert keys == [f"{slow}{at:03}" for at in range(200)]


async def test_an_idle_watch_is_told_how_far_time_has_moved(shared_etcd: Etcd, prefix: str) -> None:
    """etcd marks progress by itself once a watch has had an event (before 3.4.31 and 3.5.13)."""
    async with open_etcd(shared_etcd.config()) as store:
        _, revision = await everything(store, prefix)
        async with ending(store.changes(prefix, after=revision)) as batches:
            await store.commit([PutOp(f"{prefix}a", b"")])
            await first_changes(batches, 1)
            last = await store.commit([PutOp("elsewhere", b"")])
            async with asyncio.timeout(20):
                async for batch in batches:
                    assert not batch.events
                    if batch.revision >= last:
                        break


async def test_a_rate_limit_holds_for_transactions_and_counts_a_list_once(
    shared_etcd: Etcd, prefix: str
) -> None:
    async with open_etcd(shared_etcd.config(qps=20.0, first_page_keys=2, page_keys=2)) as store:
        await store.connected(beyond=0)
        for at in range(10):
            await store.commit([PutOp(f"{prefix}{at}", b"")])
        store.bootstrapped()
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(40):
            await store.get("a")
        assert loop.time() - began > 0.9, "20 at once, 20 more take a second"
        began = loop.time()
        await everything(store, prefix)
        assert loop.time() - began < 0.9, "six pages, one operation"


async def test_a_hundred_followers_share_one_connection(shared_etcd: Etcd, prefix: str) -> None:
    async with open_etcd(shared_etcd.config()) as store, asyncio.TaskGroup() as tasks:
        heard: set[int] = set()

        async def listen(at: int) -> None:
            async with ending(follow(store, f"{prefix}{at}/")) as story:
                async for told in story:
                    if any(getattr(event, "key", "") for event in told):
                        heard.add(at)
                        return

        for at in range(100):
            tasks.create_task(listen(at))
        await asyncio.sleep(0.5)
        for at in range(100):
            await store.commit([PutOp(f"{prefix}{at}/x", b"")])
        async with asyncio.timeout(20):
            while len(heard) < 100:  # noqa: ASYNC110 - a hundred tasks make it true
                await asyncio.sleep(0.01)
        assert store.connections == 1
