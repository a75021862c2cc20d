"""Every accident to source, cache and process, in random order; the seed repeats a run.

In the end the cache equals its source. The whole history of the cache's etcd is read again: at no
revision did a canary stand without its data, and nobody else's key was ever touched.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random

import pytest

from clustermesh import keys
from clustermesh.keys import Kind, Layout
from clustermesh.kvstoremesh import places
from kvstore.client import DeleteOp, PutOp, StoreError
from kvstore.etcd import open_etcd
from kvstore.events import Put
from tests.support.apiserver import contents, until
from tests.support.etcd import BINARIES, Etcd, running_etcd
from tests.support.kvstoremesh import Replica, cluster, commit
from tests.support.promises import History
from tests.support.scene import history

LASTING = {
    kind: {f"lasting/{at}": b"%d" % at for at in range(300)}
    for kind in (Kind.NODES, Kind.IDENTITIES, Kind.IPS, Kind.SERVICES)
}
FOREIGN = {
    "cilium/cluster-config/home": b'{"id":1,"capabilities":{}}',
    "cilium/state/nodes/v1/home/n1": b"own",
    "cilium/cache/nodes/v1/paris2/n1": b"another's",
    "cilium/cache/ip/v1/pari/10.0.0.1": b"another's",
}


class Trial:
    """Source, cache and process, and the pasts that the cache's etcd has had."""

    def __init__(self, source: Etcd, cache: Etcd, replica: Replica) -> None:
        self.source = source
        self.cache = cache
        self.replica = replica
        self.pasts: list[History] = []

    async def publish(self) -> None:
        """What a control plane writes when it starts, and when its etcd was wiped."""
        await self.source.ready()
        async with open_etcd(self.source.config("root")) as store:
            await commit(store, cluster("paris", 7, LASTING))

    async def own(self) -> None:
        """What others have in the cache's etcd."""
        await self.cache.ready()
        async with open_etcd(self.cache.config("root")) as store:
            await commit(store, [PutOp(key, value) for key, value in FOREIGN.items()])

    async def process_killed(self) -> None:
        self.replica.stop(9)
        await asyncio.sleep(0.3)
        self.replica.start()

    async def source_killed(self) -> None:
        self.source.kill()
        await asyncio.sleep(0.5)
        self.source.start()
        await self.source.ready()

    async def source_compacted_while_away(self) -> None:
        """What the process missed cannot be asked for any more."""
        self.source.kill()
        self.source.start()
        await self.source.ready()
        async with open_etcd(self.source.config("root")) as store:
            revision = await store.commit([PutOp("compacted", b"")])
        self.source.ctl("compact", str(revision))

    async def source_wiped(self) -> None:
        self.source.wipe()
        self.source.start()
        await self.publish()

    async def cache_killed(self) -> None:
        self.cache.kill()
        await asyncio.sleep(0.5)
        self.cache.start()
        await self.cache.ready()

    async def cache_wiped(self) -> None:
        self.pasts.append(await history(self.cache.config("root")))
        self.cache.wipe()
        self.cache.start()
        await self.own()


ACCIDENTS: tuple[Callable[[Trial], Awaitable[None]], ...] = (
    Trial.process_killed,
    Trial.source_killed,
    Trial.source_compacted_while_away,
    Trial.source_wiped,
    Trial.cache_killed,
    Trial.cache_wiped,
)


@asynccontextmanager
async def traffic(source: Etcd, random: Random) -> AsyncIterator[None]:
    """Changes of keys that no promise is about, some hundred a second."""

    async def write() -> None:
        async with open_etcd(source.config("root")) as store:
            while True:
                kind = random.choice(list(LASTING))
                key = keys.prefix(kind, Layout.STATE, "paris") + f"brief/{random.randrange(50)}"
                gone = random.random() < 0.3
                with suppress(StoreError):
                    op = DeleteOp(key) if gone else PutOp(key, random.randbytes(20))
                    await store.commit([op])
                await asyncio.sleep(0.003)

    async with asyncio.TaskGroup() as tasks:
        writing = tasks.create_task(write())
        yield
        writing.cancel()


def falsehoods(past: History) -> list[str]:
    """What was wrong at some revision of a past."""
    promised = {
        keys.canary(kind, Layout.CACHE, "paris"): {
            places.target("paris", kind) + name for name in names
        }
        for kind, names in LASTING.items()
    }
    held: set[str] = set()
    found: list[str] = []
    at = 0
    for change in [*past.changes, None]:
        if change is None or change.revision != at:
            found += [
                f"revision {at}: {sign} without {len(promised[sign] - held)} keys"
                for sign in promised.keys() & held
                if not promised[sign] <= held
            ]
            if change is None:
                break
            at = change.revision
        if isinstance(change, Put):
            held.add(change.key)
            if FOREIGN.get(change.key, change.value) != change.value:
                found.append(f"revision {at}: {change.key} was overwritten")
        else:
            held.discard(change.key)
            if change.key in FOREIGN:
                found.append(f"revision {at}: {change.key} was removed")
    return found


def by_name(found: dict[str, bytes], layout: Layout) -> dict[tuple[Kind, str], bytes]:
    """Values by kind and name."""
    return {
        (kind, key.removeprefix(prefix)): value
        for kind in LASTING
        for prefix in [keys.prefix(kind, layout, "paris")]
        for key, value in found.items()
        if key.startswith(prefix)
    }


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("version", sorted(BINARIES))
async def test_any_accidents_in_any_order(version: str, seed: int, tmp_path: Path) -> None:
    random, binary = Random(seed), BINARIES[version]
    with (
        running_etcd(binary) as source,
        running_etcd(binary) as cache,
        Replica(tmp_path, cache) as replica,
    ):
        trial = Trial(source, cache, replica)
        await trial.publish()
        await trial.own()
        replica.configure("paris", source)
        await replica.ready()
        async with traffic(source, random):
            for _ in range(14):
                accident = random.choice(ACCIDENTS)
                print(accident.__name__)
                await accident(trial)
                await asyncio.sleep(random.uniform(0.0, 2.0))

        async def equal() -> bool:
            there, here = await contents(source), await contents(cache)
            wanted = {key: entry.value for key, entry in there.items()}
            held = {key: entry.value for key, entry in here.items()}
            signs = {keys.canary(kind, Layout.CACHE, "paris") for kind in LASTING}
            same = by_name(held, Layout.CACHE) == by_name(wanted, Layout.STATE)
            return same and signs <= held.keys()

        await until(equal)
        for past in [*trial.pasts, await history(cache.config("root"))]:
            assert falsehoods(past) == []
