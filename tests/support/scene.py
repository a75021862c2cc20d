"""A writer and a follower at work on a real etcd, while things happen to it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random

from kvstore.client import DeleteOp, PutOp, Store, StoreError, WriteOp
from kvstore.config import EtcdConfig
from kvstore.etcd import EtcdStore, open_etcd
from kvstore.events import Delete, Event, Put, Synced
from kvstore.watch import FollowSettings, ending, follow
from tests.support.promises import History, Recording, broken_promises, states_agree
from tests.support.store_contract import everything

PREFIX = "t/"
QUICK = FollowSettings(ceiling=0.3, denied_wait=0.3, doubt=0.5)


class Scene:
    """What the follower was told so far, and how it ended."""

    def __init__(self, config: EtcdConfig, seed: int, settings: FollowSettings) -> None:
        self.config = config
        self.random = Random(seed)
        self.settings = settings
        self.told = 0
        self.synced = 0
        self.picture: dict[str, bytes] = {}
        self.reports: list[str] = []
        self.refusals: list[str] = []
        self.value_size = 20
        self.writing = asyncio.Event()
        self.writing.set()
        self._between_writes = asyncio.Event()
        self._news = asyncio.Event()
        self.record: Recording
        self.store: EtcdStore

    async def follow(self) -> None:
        """The follower."""
        story = follow(self.record, PREFIX, settings=self.settings, report=self._report)
        async with ending(story) as slices:
            async for told in slices:
                for event in told:
                    self._learn(event)
                self.told += len(told)
                self._news.set()

    async def write(self, store: Store) -> None:
        """The writer: random transactions, failures shrugged off."""
        while True:
            if not self.writing.is_set():
                self._between_writes.set()
                await self.writing.wait()
                self._between_writes.clear()
            try:
                await store.commit(self._wish())
            except StoreError as error:
                self.refusals.append(str(error))
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.001)

    async def until(self, what: Callable[[], bool], seconds: float = 30) -> None:
        """Wait for something to become true; generous, since the machine is busy."""
        async with asyncio.timeout(seconds):
            while not what():  # noqa: ASYNC110 - anything may make it true
                await asyncio.sleep(0.01)

    async def flowing(self, events: int = 100) -> None:
        """Wait until so many more events have been told."""
        wanted = self.told + events
        await self.until(lambda: self.told >= wanted)

    async def interrupted(self) -> None:
        """Wait until the follower has said that it is interrupted."""
        before = len(self.reports)
        await self.until(lambda: len(self.reports) > before)

    async def hush(self) -> None:
        """Write no more, until ``writing`` is set again."""
        self.writing.clear()
        await self._between_writes.wait()

    async def converge(self) -> None:
        """Stop writing, and wait until the follower's picture is what the store holds."""
        await self.hush()
        async with asyncio.timeout(30):
            while True:
                try:
                    entries, _ = await everything(self.store, PREFIX)
                except StoreError:
                    entries = None
                if entries is not None and states_agree(self.picture, entries):
                    return
                await asyncio.sleep(0.05)

    def _learn(self, event: Event) -> None:
        match event:
            case Put(key, value):
                self.picture[key] = value
            case Delete(key):
                del self.picture[key]
            case Synced():
                self.synced += 1

    def _report(self, sentence: str | None) -> None:
        if sentence is not None:
            self.reports.append(sentence)

    def _wish(self) -> Sequence[WriteOp]:
        names = self.random.sample(range(60), self.random.choice([1, 1, 1, 2, 20]))
        return [
            DeleteOp(f"{PREFIX}{name}")
            if self.random.random() < 0.3
            else PutOp(f"{PREFIX}{name}", self.random.randbytes(self.value_size))
            for name in names
        ]


@asynccontextmanager
async def under_traffic(
    config: EtcdConfig,
    *,
    seed: int,
    writer: EtcdConfig | None = None,
    settings: FollowSettings = QUICK,
) -> AsyncIterator[Scene]:
    """A scene that is flowing. The follower and the writer have connections of their own."""
    scene = Scene(config, seed, settings)
    async with open_etcd(config) as reading, open_etcd(writer or config) as writing:
        scene.store, scene.record = reading, Recording(reading)
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(scene.follow())
            traffic = tasks.create_task(scene.write(writing))
            try:
                await scene.flowing()
                yield scene
            finally:
                following.cancel()
                traffic.cancel()


async def history(config: EtcdConfig, *, after: int = 0) -> History:
    """All that an etcd remembers, from a client of its own."""
    async with open_etcd(config) as store, asyncio.timeout(30):
        _, until = await everything(store, PREFIX)
        changes = []
        async with ending(store.changes("", after=after)) as batches:
            async for batch in batches:
                changes += batch.events
                if batch.revision >= until:
                    break
    return History(changes, until)


async def judge(scene: Scene, *histories: Awaitable[History] | History) -> None:
    """No promise was broken, whatever happened."""
    known = [one if isinstance(one, History) else await one for one in histories]
    assert scene.record.watches, "nothing was watched: this proves nothing"
    assert broken_promises(scene.record, known) == []
