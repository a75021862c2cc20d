"""Configuration, data, canaries, heartbeat; and a dead source that nobody takes for a live one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from clustermesh.apiserver import order
from clustermesh.apiserver.announce import Announcement
from clustermesh.apiserver.heartbeat import Heart
from clustermesh.apiserver.publication import Publication
from clustermesh.export import Exporter, ExportSettings, SliceExport, cluster_config
from clustermesh.gojson import encode
from clustermesh.health import Board
from clustermesh.keys import HEARTBEAT
from clustermesh.sources import objects
from clustermesh.sources.objects import ObjectKind
from clustermesh.sources.port import Removal, Upsert
from kvstore.client import DeleteOp, PutOp
from kvstore.memory import MemoryStore
from kvstore.publish import Publisher
from tests.support.clock import settle, virtual

SETTINGS = ExportSettings(cluster="paris", cluster_id=7)
CONFIG = "cilium/cluster-config/paris"
NODE = "cilium/state/nodes/v1/paris/"
MINUTES = 60.0


def cilium_node(name: str) -> Upsert:
    return Upsert(objects.CiliumNode(objects.Meta(name=name)))


class World:
    """All parts but the source, which the test plays, over a store in memory."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.board = Board()
        self.board.require_once(order.CONDITION)
        self.publisher = Publisher(self.store)
        self.publication = Publication(
            Exporter(SETTINGS), self.publisher, self.board, kinds=SETTINGS.kinds
        )
        loop = asyncio.get_running_loop()
        self.heart = Heart(self.publisher, interval=60.0, now=lambda: 1e9 + loop.time())
        self.announcement = Announcement(
            self.publisher,
            cluster="paris",
            value=encode(cluster_config(SETTINGS)),
            report=self.board.reporter("cluster-config"),
        )

    async def publish(self) -> None:
        await order.first_sync(
            self.publication, self.publisher, self.announcement, SETTINGS, self.board
        )
        await order.tidy(self.publication, self.publisher, SETTINGS)
        await self.heart.run(self.publication.alive)

    def synced(self) -> None:
        for kind in sorted(SETTINGS.kinds):
            self.publication.synced(kind)

    async def keys(self) -> dict[str, bytes]:
        return {key: value for key, (value, _) in (await self.entries()).items()}

    async def entries(self) -> dict[str, tuple[bytes, int]]:
        found: dict[str, tuple[bytes, int]] = {}
        async for page in self.store.pages(""):
            found |= {entry.key: (entry.value, entry.revision) for entry in page.entries}
        return found

    async def beats(self) -> int:
        """How often the heart has beaten, by the store's account."""
        count = 0
        async for batch in self.store.changes(HEARTBEAT, after=0):
            count += len(batch.events)
            if batch.revision >= self.store.revision:
                return count
        return count


@asynccontextmanager
async def publishing() -> AsyncIterator[World]:
    world = World()
    async with asyncio.TaskGroup() as tasks:
        running = [
            tasks.create_task(world.publisher.run(), name="publisher"),
            tasks.create_task(world.publication.run(), name="publication"),
            tasks.create_task(world.publish(), name="publish"),
        ]
        yield world
        for task in running:
            task.cancel()


@virtual
async def test_canaries_and_heartbeat_wait_for_the_last_kind() -> None:
    async with publishing() as world:
        world.publication.apply(ObjectKind.CILIUM_NODE, [cilium_node("a")])
        for kind in sorted(SETTINGS.kinds - {ObjectKind.SERVICE}):
            world.publication.synced(kind)
        await asyncio.sleep(5 * MINUTES)
        assert (await world.keys()).keys() == {CONFIG, NODE + "a"}
        assert not world.board.ready
        world.publication.synced(ObjectKind.SERVICE)
        await settle()
        keys = await world.entries()
        assert keys.keys() == {CONFIG, NODE + "a", HEARTBEAT, *order.canaries(SETTINGS)}
        assert keys[CONFIG][1] <= keys[NODE + "a"][1]
        assert all(keys[NODE + "a"][1] < keys[key][1] for key in order.canaries(SETTINGS))
        assert keys[HEARTBEAT][1] == max(revision for _, revision in keys.values())
        assert world.board.ready


@virtual
async def test_an_api_server_away_for_ten_minutes() -> None:
    async with publishing() as world:
        world.publication.apply(ObjectKind.CILIUM_NODE, [cilium_node("a"), cilium_node("b")])
        world.synced()
        await asyncio.sleep(5.5 * MINUTES)
        before, beats = await world.entries(), await world.beats()
        assert beats >= 5
        for kind in SETTINGS.kinds:
            world.publication.trouble(kind, "the API server does not answer")
        await asyncio.sleep(10 * MINUTES)
        assert await world.entries() == before, "what is published stays, and nothing beats"
        assert world.board.ready
        gone = objects.Ref(ObjectKind.CILIUM_NODE, "", "b")
        world.publication.apply(ObjectKind.CILIUM_NODE, [cilium_node("a"), Removal(gone)])
        world.synced()
        for kind in SETTINGS.kinds:
            world.publication.trouble(kind, None)
        await settle()
        after = await world.entries()
        assert before.keys() - after.keys() == {NODE + "b"}
        assert after[NODE + "a"] == before[NODE + "a"], "what still exists was not touched"
        assert await world.beats() > beats - 1
        assert after[HEARTBEAT][1] > before[HEARTBEAT][1]


@virtual
async def test_a_config_that_somebody_edits_or_removes_is_put_back() -> None:
    async with publishing() as world, asyncio.TaskGroup() as tasks:
        world.synced()
        await settle()
        watching = tasks.create_task(world.announcement.watch(world.store), name="watch")
        await settle()
        right = (await world.keys())[CONFIG]
        await world.store.commit([PutOp(CONFIG, b'{"id":9}'), PutOp(CONFIG + "2", b"other")])
        await settle()
        assert (await world.keys())[CONFIG] == right
        assert (await world.keys())[CONFIG + "2"] == b"other"
        await world.store.commit([DeleteOp(CONFIG)])
        await settle()
        assert (await world.keys())[CONFIG] == right
        assert world.board.trouble() == ()
        watching.cancel()


@virtual
async def test_a_config_that_the_watch_missed_is_found_by_the_recheck() -> None:
    async with publishing() as world, asyncio.TaskGroup() as tasks:
        world.synced()
        await settle()
        right = (await world.keys())[CONFIG]
        checking = tasks.create_task(world.announcement.recheck(world.store, every=300))
        await world.store.commit([DeleteOp(CONFIG)])
        await asyncio.sleep(299)
        assert CONFIG not in await world.keys()
        await asyncio.sleep(2)
        assert (await world.keys())[CONFIG] == right
        checking.cancel()


@virtual
async def test_a_second_apiserver_on_the_same_etcd_is_reported() -> None:
    async with publishing() as world, asyncio.TaskGroup() as tasks:
        world.synced()
        await settle()
        world.store.outage()
        world.announcement._put_back(b'{"id":9}')
        assert "is another apiserver using this etcd?" in str(world.board.trouble())
        world.store.heal()
        watching = tasks.create_task(world.announcement.watch(world.store), name="watch")
        await asyncio.sleep(60)
        assert "another apiserver" not in str(world.board.trouble())
        watching.cancel()


def test_slices_have_a_canary_when_they_are_exported() -> None:
    both = ExportSettings(cluster="paris", cluster_id=7, slices=SliceExport.BOTH)
    extra = set(order.canaries(both)) - set(order.canaries(SETTINGS))
    assert extra == {"cilium/synced/paris/cilium/state/endpointslices/v1"}
