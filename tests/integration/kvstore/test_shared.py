"""One connection for everybody who asks for the same etcd in the same way."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from kvstore.client import DeleteOp, PutOp, Store
from kvstore.etcd import EtcdStore
from kvstore.events import Put, Synced
from kvstore.shared import Connections
from kvstore.watch import ending, follow
from tests.support.etcd import Etcd, running_etcd


@pytest.fixture(scope="module")
def etcd() -> Iterator[Etcd]:
    with running_etcd() as etcd:
        yield etcd


@asynccontextmanager
async def running() -> AsyncIterator[Connections]:
    """Connections, with somebody who owns them."""
    connections = Connections()
    owner = asyncio.create_task(connections.run())
    yield connections
    owner.cancel()
    await asyncio.wait((owner,))


async def first(store: EtcdStore) -> None:
    async with asyncio.timeout(20):
        await store.connected(beyond=0)


async def told(store: Store, prefix: str) -> dict[str, bytes]:
    """What a follower hears until everything was told."""
    found: dict[str, bytes] = {}
    async with asyncio.timeout(20), ending(follow(store, prefix)) as slices:
        async for events in slices:
            found |= {event.key: event.value for event in events if isinstance(event, Put)}
            if isinstance(events[-1], Synced):
                break
    return found


async def test_many_names_of_one_etcd_are_one_connection(etcd: Etcd) -> None:
    config = etcd.config()
    async with running() as connections, connections.open(config) as one:
        async with connections.open(etcd.config()) as two:
            await first(two)
            await two.commit([PutOp("a/1", b"x"), PutOp("b/1", b"y")])
            assert len(connections) == 1
            assert await told(one, "a/") == {"a/1": b"x"}
            assert await told(two, "b/") == {"b/1": b"y"}
            link = one._connector.live
            assert link is two._connector.live
        assert (await one.get("a/1")) is not None, "it stays for whoever is left"
        assert one._connector.live is link
    assert len(connections) == 0
    assert link is not None
    assert not link.alive, "the last one closes it"


async def test_who_asks_differently_gets_another_one(etcd: Etcd) -> None:
    other = msgspec.structs.replace(etcd.config(), request_timeout=7.0)
    async with (
        running() as connections,
        connections.open(etcd.config()) as one,
        connections.open(other) as two,
    ):
        await first(one)
        await first(two)
        assert len(connections) == 2
        assert one._connector.live is not two._connector.live


async def test_nobody_waits_for_anothers_turn(etcd: Etcd) -> None:
    """Each has the rate of its configuration: hundreds of clusters do not share one cluster's."""
    config = etcd.config(qps=1.0, bootstrap_qps=1.0)
    async with (
        running() as connections,
        connections.open(config) as busy,
        connections.open(config) as idle,
    ):
        await first(idle)
        async with asyncio.TaskGroup() as tasks:
            waiting = [tasks.create_task(busy.get("a")) for _ in range(30)]
            async with asyncio.timeout(20):
                await idle.get("a")
            assert not all(task.done() for task in waiting)
            for task in waiting:
                task.cancel()


async def test_it_is_opened_only_when_somebody_owns_it(etcd: Etcd) -> None:
    connections = Connections()
    opening = asyncio.create_task(_opened(connections, etcd))
    await asyncio.sleep(0.1)
    assert not opening.done()
    owner = asyncio.create_task(connections.run())
    async with asyncio.timeout(20):
        await opening
    owner.cancel()
    await asyncio.wait((owner,))


async def _opened(connections: Connections, etcd: Etcd) -> None:
    async with connections.open(etcd.config()) as store:
        await first(store)


async def test_what_many_look_at_is_read_for_all(etcd: Etcd) -> None:
    clock = asyncio.get_running_loop().time
    async with (
        running() as connections,
        connections.open(etcd.config()) as one,
        connections.open(etcd.config()) as two,
    ):
        await first(one)
        await one.commit([PutOp("signs/a", b"1"), PutOp("signs/b", b"1"), PutOp("signs2", b"1")])
        found, took = await one.look("signs/a", within=3600)
        assert (found and found.value, took > 0) == (b"1", True)
        await one.commit([PutOp("signs/b", b"2"), DeleteOp("signs/a")])
        began = clock()
        known = await two.look("signs/b", within=3600)
        assert (known[0] and known[0].value, known[1]) == (b"1", took), "as it stood then"
        assert await two.look("signs/none", within=3600) == (None, took)
        anew, _ = await two.look("signs/b", within=0)
        assert anew is not None
        assert anew.value == b"2"
        assert (await one.look("signs/a", within=clock() - began))[0] is None, "read since then"
        assert (await one.look("signs2", within=3600))[0] is not None, "another folder"
