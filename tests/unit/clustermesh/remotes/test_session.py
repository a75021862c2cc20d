"""What a session tells of what it cannot do."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from clustermesh import keys
from clustermesh.keys import Kind, Layout
from clustermesh.remotes.gate import Held
from clustermesh.remotes.handshake import judge
from clustermesh.remotes.progress import Progress
from clustermesh.remotes.session import Role, Session, Waits
from kvstore.client import DeleteOp, Denied, Entry, Page, PutOp, Reader
from kvstore.events import Delete
from kvstore.memory import MemoryStore
from kvstore.watch import ending, follow
from tests.support.clock import virtual
from tests.support.kvstoremesh import SHOP, cluster
from tests.support.remote_world import ME, QUICK


class Deaf(MemoryStore):
    """Its roles let nobody read the heartbeat, until they are mended."""

    mended = False

    async def pages(self, prefix: str) -> AsyncIterator[Page]:
        if prefix == keys.HEARTBEAT and not self.mended:
            raise Denied("etcdserver: permission denied")
        async with ending(super().pages(prefix)) as pages:
            async for page in pages:
                yield page


@virtual
async def test_a_heartbeat_that_may_not_be_read_is_no_silence() -> None:
    store, progress = Deaf(), Progress("paris")
    await store.commit(cluster("paris", 7, SHOP))
    role = Role(
        judge=lambda value: judge("paris", value, ME),
        accept=lambda *_: None,
        readers=lambda _: {Kind.NODES: lambda *_: asyncio.Event().wait()},
    )
    session = Session(role=role, progress=progress, waits=QUICK)
    running = asyncio.create_task(session.run(store))
    await asyncio.sleep(1)
    assert progress.sentence() == "cilium/.heartbeat: etcdserver: permission denied"
    store.mended = True
    await asyncio.sleep(6)
    assert progress.sentence() == ""
    running.cancel()
    await asyncio.wait([running])


@virtual
async def test_of_very_many_clusters_one_config_is_read_again_in_a_second() -> None:
    asked: list[float] = []

    class Counting(MemoryStore):
        async def get(self, key: str) -> Entry | None:
            if key == keys.cluster_config("paris"):
                asked.append(asyncio.get_running_loop().time())
            return await super().get(key)

    for crowd, at_least in ((1, QUICK.config), (250, 250)):
        asked.clear()
        store = Counting()
        await store.commit(cluster("paris", 7, SHOP))
        role = Role(
            judge=lambda value: judge("paris", value, ME),
            accept=lambda *_: None,
            readers=lambda _: {Kind.NODES: lambda *_: asyncio.Event().wait()},
            crowd=lambda crowd=crowd: crowd,
        )
        session = Session(role=role, progress=Progress("paris"), waits=QUICK)
        running = asyncio.create_task(session.run(store))
        await asyncio.sleep(3.5 * at_least)
        _, first, second, *_ = asked
        assert second - first == pytest.approx(at_least)
        running.cancel()
        await asyncio.wait([running])


class Together(MemoryStore):
    """Of the configs it has a look of all at once, like a store that shares a connection."""

    async def look(self, key: str, *, within: float) -> tuple[Entry | None, float]:
        assert within < 5
        return await self.get(key), 0.001


@virtual
@pytest.mark.parametrize("crowd", [1, 60, 250, 511])
@pytest.mark.parametrize("kind", [MemoryStore, Together])
async def test_of_a_copy_that_runs_out_nothing_is_believed_gone(
    crowd: int, kind: type[MemoryStore]
) -> None:
    """Its kvstoremesh is dead: the config's lease ends a minute before that of the facts, while the
    etcd's own heartbeat goes on (contract kvstore 5.5).
    """
    store, gone = kind(), list[Delete]()
    await store.commit(cluster("paris", 7, SHOP, layout=Layout.CACHE))
    prefix = keys.prefix(Kind.NODES, Layout.CACHE, "paris")

    async def reader(facts: Reader, gate: Held) -> None:
        async for events in follow(facts, prefix, gate=gate):
            gone.extend(event for event in events if isinstance(event, Delete))

    async def beats() -> None:
        while True:
            await store.commit([PutOp(keys.HEARTBEAT, str(loop.time()).encode())])
            await asyncio.sleep(60)

    loop = asyncio.get_running_loop()
    role = Role(
        judge=lambda value: judge("paris", value, ME),
        accept=lambda *_: None,
        readers=lambda _: {Kind.NODES: reader},
        crowd=lambda: crowd,
    )
    session = Session(role=role, progress=Progress("paris"), waits=Waits())
    tasks = [asyncio.create_task(it) for it in (session.run(store), beats())]
    await asyncio.sleep(2000)
    await store.commit([DeleteOp(keys.cluster_config("paris"))])
    await asyncio.sleep(60)
    await store.commit([DeleteOp(prefix + key) for key in SHOP[Kind.NODES]])
    await asyncio.sleep(2000)
    assert not gone
    assert "no cluster-config" in session.held
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
