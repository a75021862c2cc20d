"""What a session tells of what it cannot do."""

import asyncio
from collections.abc import AsyncIterator

from clustermesh import keys
from clustermesh.keys import Kind
from clustermesh.remotes.handshake import judge
from clustermesh.remotes.progress import Progress
from clustermesh.remotes.session import Role, Session
from kvstore.client import Denied, Page
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
