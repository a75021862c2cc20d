"""Every fault on every etcd, in random order, again and again; the seed repeats a run."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import pytest

from tests.support.etcd import BINARIES, Etcd, running_etcd
from tests.support.promises import History
from tests.support.scene import Scene, history, judge, under_traffic

ALIVE = {"keepalive_time": 0.5, "keepalive_timeout": 0.5}


class Trial:
    """One etcd, what happened to it, and the pasts it has had."""

    def __init__(self, etcd: Etcd, scene: Scene) -> None:
        self.etcd = etcd
        self.scene = scene
        self.pasts: list[History] = []
        self.told: History = History()
        """Of the present past, what was compacted since."""

    async def remember(self) -> None:
        """Keep what the etcd remembers, before it is made to forget."""
        await self.scene.hush()
        newer = await history(self.etcd.config(**ALIVE), after=self.told.until)
        self.told = History([*self.told.changes, *newer.changes], newer.until)

    async def kill(self) -> None:
        self.etcd.kill()
        await asyncio.sleep(0.3)
        self.etcd.start()

    async def stop(self) -> None:
        self.etcd.pause()
        await asyncio.sleep(2.5)
        self.etcd.resume()

    async def compact(self) -> None:
        await self.remember()
        self.etcd.ctl("compact", str(self.told.until))
        await self.kill()

    async def defragment(self) -> None:
        await asyncio.to_thread(self.etcd.ctl, "defrag")

    async def restore(self) -> None:
        backup = self.etcd.folder / "backup"
        backup.unlink(missing_ok=True)
        await self.remember()
        await asyncio.to_thread(self.etcd.backup, backup)
        kept = self.told
        self.scene.writing.set()
        await self.scene.flowing()
        await self.remember()
        self.pasts.append(self.told)
        self.told = kept
        self.etcd.restore(backup)
        self.etcd.start()

    async def wipe(self) -> None:
        await self.remember()
        self.pasts.append(self.told)
        self.told = History()
        self.etcd.wipe()
        self.etcd.start()


FAULTS: tuple[Callable[[Trial], Awaitable[None]], ...] = (
    Trial.kill,
    Trial.stop,
    Trial.compact,
    Trial.defragment,
    Trial.restore,
    Trial.wipe,
)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("version", sorted(BINARIES))
async def test_any_faults_in_any_order(version: str, seed: int) -> None:
    random = Random(seed)
    with running_etcd(BINARIES[version]) as etcd:
        async with under_traffic(etcd.config(**ALIVE), seed=seed) as scene:
            trial = Trial(etcd, scene)
            for _ in range(12):
                fault = random.choice(FAULTS)
                print(fault.__name__)
                await fault(trial)
                await etcd.ready()
                scene.writing.set()
                await scene.flowing(300)
            await scene.converge()
            await trial.remember()
        await judge(scene, *trial.pasts, trial.told)
