"""The own cluster: followed for ever, never drained, fresh only while its apiserver lives."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from agent.facts import LocalKind
from agent.remotes.own import Own
from clustermesh import local
from clustermesh.keys import Kind
from clustermesh.local import LocalService
from tests.support.remote_world import ME, QUICK, World, node, opener, settle, until


def config(tmp_path: Path) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text("endpoints:\n- http://home:2379\n")
    return path


async def put_service(world: World, name: str) -> None:
    service = LocalService(namespace="shop", name=name, is_global=True)
    await world.peers["home"].put(local.key_of(service), local.encode(service))


async def open_home(world: World, number: int = 1) -> None:
    await world.peer("home", number).open_shop()
    await put_service(world, "cart")
    await world.peers["home"].put(local.SYNCED, b"now")


@asynccontextmanager
async def living(world: World, tmp_path: Path, **waits: float) -> AsyncIterator[Own]:
    own = Own(
        config(tmp_path),
        me=ME,
        sink=world.sink,
        opener=opener({"home": world.peer("home", 1).store}),
        waits=msgspec.structs.replace(QUICK, **waits),
        report=world.troubles.append,
    )
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(own.run())
        yield own
        task.cancel()


async def test_nodes_addresses_and_local_services_become_facts(tmp_path: Path) -> None:
    world = World(tmp_path)
    await open_home(world)
    async with living(world, tmp_path) as own:
        await until(lambda: own.progress.ready)
        assert world.sink.names("home", LocalKind.SERVICES) == {"shop/cart"}
        assert world.sink.names("home", Kind.NODES) == {"n1"}
        assert world.sink.names("home", Kind.SERVICES) == set()
        assert own.fresh
        assert world.troubles[-1] is None


async def test_services_wait_for_their_canary(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.peer("home", 1).open_shop()
    await put_service(world, "cart")
    async with living(world, tmp_path) as own:
        await until(lambda: ("synced", "home", Kind.NODES) in world.sink.calls)
        await settle()
        assert not own.progress.ready
        assert world.sink.names("home", LocalKind.SERVICES) == set()
        await world.peers["home"].put(local.SYNCED, b"now")
        await until(lambda: own.progress.ready)


async def test_another_id_in_the_own_etcd_is_refused_with_the_way_out(tmp_path: Path) -> None:
    world = World(tmp_path)
    await open_home(world, number=2)
    async with living(world, tmp_path):
        await until(lambda: any("--cluster-id 1" in (it or "") for it in world.troubles))
        assert world.sink.facts == {}


async def test_an_outage_keeps_everything_and_is_not_fresh(tmp_path: Path) -> None:
    world = World(tmp_path)
    await open_home(world)
    store = world.peers["home"].store
    async with living(world, tmp_path) as own:
        await until(lambda: own.progress.ready)
        store.outage()
        await until(lambda: not own.fresh)
        assert world.sink.names("home", LocalKind.SERVICES) == {"shop/cart"}
        store.heal()
        await until(lambda: own.fresh)


async def test_a_silent_apiserver_makes_facts_stale_and_holds_deletions(tmp_path: Path) -> None:
    world = World(tmp_path)
    await open_home(world)
    async with living(world, tmp_path, heartbeat=0.05) as own:
        await until(lambda: own.progress.ready)
        await until(lambda: not own.fresh)
        await world.peers["home"].withdraw(node("home", 1, "n1"))
        await settle()
        assert world.sink.names("home", Kind.NODES) == {"n1"}
        await world.peers["home"].beat("2")
        await until(lambda: own.fresh or not world.sink.names("home", Kind.NODES))
        await until(lambda: not world.sink.names("home", Kind.NODES))


async def test_a_missing_file_is_named_and_awaited(tmp_path: Path) -> None:
    world = World(tmp_path)
    await open_home(world)
    async with living(world, tmp_path) as own:
        config(tmp_path).unlink()
        await until(lambda: any("own.yaml: No such file" in (it or "") for it in world.troubles))
        config(tmp_path)
        await until(lambda: own.progress.ready)
