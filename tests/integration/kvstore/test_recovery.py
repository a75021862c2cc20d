"""Wiping an apiserver's etcd is the documented recovery; here it is done under traffic."""

import asyncio
from contextlib import asynccontextmanager
from random import Random

from kvstore.client import PutOp
from kvstore.etcd import EtcdStore, open_etcd
from kvstore.events import Delete, Put
from kvstore.publish import Publisher, PublishSettings
from kvstore.watch import FollowSettings, ending, follow
from tests.support.etcd import Etcd, running_etcd
from tests.support.store_contract import everything

CANARY = "synced/p"
DATA = "p/"


class Reader:
    """A consumer on another cluster's node."""

    def __init__(self) -> None:
        self.picture: dict[str, bytes] = {}
        self.gone: list[str] = []

    async def run(self, store: EtcdStore) -> None:
        settings = FollowSettings(ceiling=0.3, doubt=1.0)
        async with ending(follow(store, DATA, canary=CANARY, settings=settings)) as slices:
            async for told in slices:
                for event in told:
                    if isinstance(event, Put):
                        self.picture[event.key] = event.value
                    elif isinstance(event, Delete):
                        del self.picture[event.key]
                        self.gone.append(event.key)


@asynccontextmanager
async def publishing(etcd: Etcd):
    """A publisher of 2,000 lasting keys and a few that come and go, and a reader."""
    config = etcd.config()
    reader, random = Reader(), Random(11)
    async with open_etcd(config) as mine, open_etcd(config) as theirs, asyncio.TaskGroup() as tasks:
        publisher = Publisher(mine, PublishSettings(lease_ttl=60, ceiling=0.3))
        wanted = {f"{DATA}lasting{at}": b"0" for at in range(2_000)}

        async def source() -> None:
            for key, value in wanted.items():
                publisher.put(key, value)
            publisher.synced(CANARY, b"")
            await publisher.sweep([DATA])
            while True:
                key = f"{DATA}{random.choice(['lasting', 'brief'])}{random.randrange(200)}"
                if "brief" in key and key in wanted:
                    del wanted[key]
                    publisher.remove(key)
                else:
                    wanted[key] = random.randbytes(8)
                    publisher.put(key, wanted[key])
                await asyncio.sleep(0.002)

        running = [
            tasks.create_task(publisher.run()),
            tasks.create_task(reader.run(theirs)),
            tasks.create_task(source()),
        ]
        try:
            yield publisher, reader, wanted, mine, running[-1]
        finally:
            for task in running:
                task.cancel()


async def until(what) -> None:
    async with asyncio.timeout(30):
        while not what():  # noqa: ASYNC110 - anything may make it true
            await asyncio.sleep(0.01)


async def test_wiping_the_etcd_under_traffic_costs_no_key() -> None:
    with running_etcd() as etcd:
        async with publishing(etcd) as (publisher, reader, wanted, store, source):
            await until(lambda: len(reader.picture) >= 2_000)
            for replaced_by in ("itself", "another"):
                etcd.wipe()
                if replaced_by == "another":
                    etcd.options.append("--initial-cluster-token=another")
                etcd.start()
                before = store.connections
                await until(lambda before=before: store.connections > before)
                await publisher.flushed()
                await asyncio.sleep(1.5)
            source.cancel()
            await publisher.flushed()
            await until(lambda: reader.picture == wanted)
            assert {one.key: one.value for one in (await everything(store, DATA))[0]} == wanted
            assert not [key for key in reader.gone if "lasting" in key]


async def test_leftovers_of_an_earlier_life_are_removed_by_the_next() -> None:
    with running_etcd() as etcd:
        async with open_etcd(etcd.config()) as store:
            await store.commit([PutOp(f"{DATA}old{at}", b"") for at in range(100)])
            await store.commit([PutOp("other/key", b"")])
        async with publishing(etcd) as (publisher, reader, wanted, store, source):
            await until(lambda: len(reader.picture) >= 2_000)
            await publisher.flushed()
            source.cancel()
            await publisher.flushed()
            await until(lambda: reader.picture == wanted)
            assert await store.get("other/key") is not None
