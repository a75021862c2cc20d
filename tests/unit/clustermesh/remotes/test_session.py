"""What a session tells of what it cannot do."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from clustermesh import keys
from clustermesh.keys import Kind
from clustermesh.remotes.handshake import judge
from clustermesh.remotes.progress import Progress
from clustermesh.remotes.session import Role, Session
from kvstore.client import Denied, Entry, Page
from kvstore.memory import MemoryStore
from kvstore.watch import ending
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
