"""Going on with what an earlier life published: nothing written anew, nothing lost, signs first."""

import asyncio

from kvstore.client import DeleteOp, PutOp
from kvstore.memory import MemoryStore
from kvstore.publish import Publisher, PublishSettings
from tests.support.clock import settle, virtual
from tests.support.store_contract import everything

SETTINGS = PublishSettings(lease_ttl=900, lease_keys=3, signs=("synced/",))
DATA = {f"data/{n}": b"%d" % n for n in range(5)}


async def life(store: MemoryStore, *, adopt: bool) -> Publisher:
    """One process after another: publish everything (or adopt it), then die without a word."""
    publisher = Publisher(store, SETTINGS)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(publisher.run())
        if adopt:
            await publisher.adopt(["config"], ["data/", "synced/"])
        publisher.put("config", b"c")
        for key, value in DATA.items():
            publisher.put(key, value)
        publisher.synced("synced/data", b"now")
        await publisher.flushed()
        await settle(20)
        task.cancel()
    return publisher


async def contents(store: MemoryStore) -> dict[str, bytes]:
    return {entry.key: entry.value for entry in (await everything(store, ""))[0]}


@virtual
async def test_what_is_there_already_is_not_written_again() -> None:
    store = MemoryStore()
    await life(store, adopt=False)
    before = store.revision
    await life(store, adopt=True)
    assert store.revision == before


@virtual
async def test_adopted_leases_are_kept_alive() -> None:
    store = MemoryStore()
    await life(store, adopt=False)
    store.advance(500)
    await life(store, adopt=True)
    store.advance(500)
    assert await contents(store) == {"config": b"c", "synced/data": b"now", **DATA}


@virtual
async def test_they_are_renewed_in_time_though_nothing_is_wished_for() -> None:
    store = MemoryStore()
    await life(store, adopt=False)
    publisher = Publisher(store, SETTINGS)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(publisher.run())
        await settle(20)  # it rests
        await publisher.adopt(["config"], ["data/", "synced/"])
        for _ in range(30):
            await asyncio.sleep(60)
            store.advance(60)
        task.cancel()
    assert await contents(store) == {"config": b"c", "synced/data": b"now", **DATA}


@virtual
async def test_a_key_whose_lease_has_no_successor_is_written_on_a_lease_of_ours() -> None:
    store = MemoryStore()
    await store.commit([PutOp("data/0", b"0")])  # by somebody who uses no leases
    await life(store, adopt=True)
    found = await store.get("data/0")
    assert found is not None
    assert found.lease


@virtual
async def test_adopted_keys_can_be_removed_and_come_back_after_a_wipe() -> None:
    store = MemoryStore()
    await life(store, adopt=False)
    publisher = Publisher(store, SETTINGS)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(publisher.run())
        adopted = set(await publisher.adopt(["config"], ["data/", "synced/"]))
        assert adopted == {"config", "synced/data", *DATA}
        publisher.remove("data/0")
        await publisher.flushed()
        store.replace_cluster_id(2)
        await asyncio.sleep(60)
        del adopted
        expected = {"config": b"c", "synced/data": b"now", **DATA}
        del expected["data/0"]
        assert await contents(store) == expected
        task.cancel()


@virtual
async def test_of_a_dead_publisher_the_signs_go_before_anything_they_speak_for() -> None:
    store = MemoryStore()
    await life(store, adopt=False)
    for _ in range(1800):
        store.advance(1)
        left = await contents(store)
        if "synced/data" in left:
            assert DATA.keys() <= left.keys()
    assert not await contents(store)


@virtual
async def test_a_key_that_is_removed_elsewhere_is_none_of_ours() -> None:
    store = MemoryStore()
    await store.commit([PutOp("other/0", b"0"), PutOp("data/0", b"0")])
    await life(store, adopt=True)
    await store.commit([DeleteOp("data/0")])
    assert "other/0" in await contents(store)
