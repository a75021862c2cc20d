"""Whatever happens to sources, cache and process: the cache ends equal, and never promises falsely.

The stories are told in virtual time over stores in memory that keep the manners of etcd. Every
revision of the cache is checked, not only the end.
"""

import asyncio
from collections.abc import Callable

from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.facts import Me
from clustermesh import keys
from clustermesh.keys import Kind, Layout
from clustermesh.kvstoremesh import places
from clustermesh.kvstoremesh.remote import Remote, Tuning
from clustermesh.remotes.directory import RemoteFile
from clustermesh.remotes.handshake import Ids
from clustermesh.remotes.session import Waits
from kvstore.client import DeleteOp, PutOp
from kvstore.memory import MemoryStore, Snapshot
from kvstore.watch import FollowSettings
from tests.support.clock import virtual
from tests.support.kvstoremesh import SHOP, cluster
from tests.support.remote_world import file_of, opener
from tests.support.store_contract import everything

ME = Me("home", 1, "", "")
FOREIGN = {
    "cilium/.heartbeat": b"home",
    "cilium/cluster-config/home": b'{"id":1,"capabilities":{}}',
    "cilium/cluster-config/paris2": b'{"id":9,"capabilities":{}}',
    "cilium/synced/home/cilium/state/nodes/v1": b"",
    "cilium/state/nodes/v1/home/n1": b"",
    "cilium/cache/nodes/v1/paris2/n1": b"",
    "cilium/cache/ip/v1/pari/10.0.0.1": b"",
}
PROMISED = {
    keys.canary(kind, Layout.CACHE, "paris"): {
        places.target("paris", kind) + name: value for name, value in SHOP[kind].items()
    }
    for kind in SHOP
}
TUNING = Tuning(
    waits=Waits(config=5.0, ceiling=2.0, follow=FollowSettings(ceiling=2.0, doubt=0.0)),
    drain_wait=20.0,
)


class Watched(MemoryStore):
    """A cache of which every moment is looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: list[str] = []
        self.foreign = True

    def _move(self) -> None:
        super()._move()
        held = {key: entry.value for key, entry in self._entries.items()}
        for sign, promised in PROMISED.items():
            if sign in held and not promised.items() <= held.items():
                self.broken.append(f"revision {self._revision}: {sign} without its data")
        if self.foreign and not FOREIGN.items() <= held.items():
            self.broken.append(f"revision {self._revision}: somebody else's key was touched")


class Story:
    """One source, one cache, one process after another."""

    def __init__(self) -> None:
        self.source = MemoryStore(page_keys=3)
        self.cache = Watched()
        self.cache.foreign = False
        self.backup: Snapshot | None = None
        self.life: asyncio.Task[None] | None = None
        self.remote: Remote | None = None
        self.beats = 0

    async def begin(self) -> None:
        await self.source.commit(cluster("paris", 7, SHOP))
        await self.cache.commit([PutOp(key, value) for key, value in FOREIGN.items()])
        self.cache.foreign = True
        self.backup = self.source.snapshot()

    def start(self, tasks: asyncio.TaskGroup) -> None:
        if self.life is None:
            self.remote = Remote(
                "paris",
                me=ME,
                ids=Ids(ME),
                cache=self.cache,
                opener=opener({"paris": self.source}),
                tuning=TUNING,
            )
            self.remote.configure(file_of("paris"))
            self.life = tasks.create_task(self._live(self.remote))

    async def _live(self, remote: Remote) -> None:
        while True:
            await remote.run()
            while remote.removed:  # noqa: ASYNC110  # until a step adds it again
                await asyncio.sleep(1)

    def configure(self, file: RemoteFile | None) -> None:
        if self.remote is not None:
            self.remote.configure(file)

    async def kill(self) -> None:
        if self.life is not None:
            self.life.cancel()
            await asyncio.wait([self.life])
            self.life = None

    async def pass_time(self, seconds: float) -> None:
        for _ in range(max(1, int(seconds // 10))):
            await asyncio.sleep(min(10.0, seconds))
            self.cache.advance(min(10.0, seconds))
            self.beats += 1
            if self.source._failure is None:
                await self.source.commit([PutOp(keys.HEARTBEAT, b"%d" % self.beats)])

    async def change(self, number: int) -> None:
        """Something in the source that no promise is about."""
        kind = list(SHOP)[number % len(SHOP)]
        key = keys.prefix(kind, Layout.STATE, "paris") + f"x/{number % 7}"
        op = DeleteOp(key) if number % 3 == 0 else PutOp(key, b"%d" % number)
        if self.source._failure is None:
            await self.source.commit([op])

    async def wanted(self) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for kind in Kind:
            source = keys.prefix(kind, Layout.STATE, "paris")
            target = places.target("paris", kind)
            for entry in (await everything(self.source, source))[0]:
                found[target + entry.key.removeprefix(source)] = entry.value
        return found

    async def held(self) -> dict[str, bytes]:
        entries = [
            entry
            for kind in Kind
            for entry in (await everything(self.cache, places.target("paris", kind)))[0]
        ]
        return {entry.key: entry.value for entry in entries}


def _wipe(story: Story) -> None:
    story.cache.foreign = False  # the wipe touches them, nobody else does
    story.cache.replace_cluster_id(story.cache.cluster_id + 1)


def _restore(story: Story) -> None:
    assert story.backup is not None
    story.source.restore(story.backup)


ACCIDENTS: dict[str, Callable[[Story], None]] = {
    "source away": lambda story: story.source.outage(),
    "source back": lambda story: story.source.heal(),
    "source compacted": lambda story: story.source.compact(),
    "source restored": _restore,
    "cache away": lambda story: story.cache.outage(),
    "cache back": lambda story: story.cache.heal(),
    "cache compacted": lambda story: story.cache.compact(),
    "cache wiped": _wipe,
    "removed": lambda story: story.configure(None),
    "added": lambda story: story.configure(file_of("paris")),
}
STEPS = st.one_of(
    st.integers(0, 40),
    st.sampled_from([*ACCIDENTS, "kill", "start", "moment", "minute", "hour"]),
)
LENGTHS = {"moment": 0.3, "minute": 60.0, "hour": 3600.0}


async def tell(steps: list[int | str]) -> None:
    story = Story()
    await story.begin()
    async with asyncio.TaskGroup() as tasks:
        story.start(tasks)
        for step in [*steps, "source back", "cache back", "added"]:
            if isinstance(step, int):
                await story.change(step)
            elif step in LENGTHS:
                await story.pass_time(LENGTHS[step])
            elif step == "kill":
                await story.kill()
            elif step == "start":
                story.start(tasks)
            else:
                ACCIDENTS[step](story)
        story.start(tasks)
        await story.pass_time(300.0)
        assert await story.held() == await story.wanted()
        signs = {entry.key for entry in (await everything(story.cache, places.SIGNS[1]))[0]}
        assert signs >= PROMISED.keys()
        await story.kill()
    assert not story.cache.broken, story.cache.broken


@settings(max_examples=60)
@given(st.lists(STEPS, max_size=14))
@example(["minute", "kill", 1, "hour", "start"])
@example(["moment", "cache away", 2, "hour", "cache back", "moment"])
@example(["moment", "cache wiped", "source away", "minute"])
@example(["minute", 4, "source restored", 7, "minute"])
@example(["minute", "removed", "moment", "added", "kill", "minute", "start"])
def test_the_cache_ends_equal_and_promises_nothing_that_is_not_there(
    steps: list[int | str],
) -> None:
    virtual(tell)(steps)
