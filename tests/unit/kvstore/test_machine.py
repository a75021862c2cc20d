"""A publisher and a follower over a store that fails at every step it can fail at.

Whatever happens, in whatever order: in the end the follower's picture is the source's, and at no
time is the follower told that a key is gone which the source has had all along.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kvstore.client import Page, Unavailable, WriteOp
from kvstore.events import Delete, Put
from kvstore.heartbeat import KEY as HEARTBEAT
from kvstore.heartbeat import Heartbeat, HeartbeatSettings
from kvstore.memory import MemoryStore, Snapshot
from kvstore.publish import Publisher, PublishSettings
from kvstore.watch import FollowSettings, ending, follow
from tests.support.clock import VirtualTimeLoop, settle

CANARY = "synced/p"
STEADY = FollowSettings(jitter=0)
LASTING = tuple(f"p/lasting{at}" for at in range(3))
"""Keys that the source never removes: nobody may ever hear that one of them is gone."""
keys = st.sampled_from([*LASTING, *(f"p/{at}" for at in range(5))])
values = st.binary(max_size=2)


class Flaky(MemoryStore):
    """Fails in the steps that it is told to fail in, before the work is done or after it."""

    def __init__(self) -> None:
        super().__init__(page_keys=2)
        self.steps = 0
        self.fail_in: set[int] = set()
        self.lose_in: set[int] = set()

    async def commit(self, ops: Sequence[WriteOp]) -> int:
        revision = await super().commit(ops)
        self._step(self.lose_in)
        return revision

    async def grant(self, ttl: float) -> int:
        lease = await super().grant(ttl)
        self._step(self.lose_in)
        return lease

    async def pages(self, prefix: str) -> AsyncIterator[Page]:
        async with ending(super().pages(prefix)) as pages:
            async for page in pages:
                self._step(self.fail_in)
                yield page

    async def _turn(self, connection: int | None = None) -> None:
        await super()._turn(connection)
        self._step(self.fail_in)

    def _step(self, failing: set[int]) -> None:
        self.steps += 1
        if self.steps in failing:
            raise Unavailable(f"step {self.steps} failed")


class Mesh(RuleBasedStateMachine):
    """The source's wishes, one store, one follower; time is virtual everywhere."""

    @initialize()
    def begin(self) -> None:
        self.loop = VirtualTimeLoop()
        self.store = Flaky()
        self.backup: Snapshot | None = None
        self.wanted: dict[str, bytes] = {}
        self.picture: dict[str, bytes] = {}
        self.wrongly_gone: list[Delete] = []
        self.reports: dict[str, str | None] = {}
        self.heartbeat = Heartbeat(
            self.store, HeartbeatSettings(follow=STEADY), report=self.reporter("heartbeat")
        )
        self.publisher_task: asyncio.Task[None] | None = None
        self.tasks = [
            self.loop.create_task(self.heartbeat.run()),
            self.loop.create_task(self.learn()),
        ]
        for key in LASTING:
            self.wanted[key] = b""
        self.start_publisher()

    def reporter(self, who: str):
        return lambda sentence: self.reports.__setitem__(who, sentence)

    async def learn(self) -> None:
        story = follow(
            self.store,
            "p/",
            gate=self.heartbeat,
            canary=CANARY,
            settings=STEADY,
            report=self.reporter("follower"),
        )
        async with ending(story) as slices:
            async for told in slices:
                for event in told:
                    if isinstance(event, Put):
                        self.picture[event.key] = event.value
                    elif isinstance(event, Delete):
                        del self.picture[event.key]
                        self.wrongly_gone += [event] if event.key in LASTING else []

    async def publish(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.publisher.run())
            for key, value in self.wanted.items():
                self.publisher.put(key, value)
            self.publisher.synced(CANARY, b"")
            await self.publisher.flushed()
            await self.publisher.sweep(["p/"])
            beats = 0
            while True:
                beats += 1
                self.publisher.synced(HEARTBEAT, str(beats).encode())
                await asyncio.sleep(60)

    def start_publisher(self) -> None:
        self.publisher = Publisher(
            self.store,
            PublishSettings(batch_ops=3, lease_keys=2, jitter=0),
            report=self.reporter("publisher"),
        )
        self.publisher_task = self.loop.create_task(self.publish())

    def stop(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        self.loop.run_until_complete(asyncio.wait([task]))

    def pass_time(self, seconds: float) -> None:
        """In small steps, because the store's clock is its own."""
        while seconds > 0:
            step = min(seconds, 20)
            self.loop.run_until_complete(asyncio.sleep(step))
            self.store.advance(step)
            seconds -= step
        self.turns(50)

    def turns(self, count: int) -> None:
        self.loop.run_until_complete(settle(count))

    @rule(key=keys, value=values)
    def wish(self, key: str, value: bytes) -> None:
        self.wanted[key] = value
        self.publisher.put(key, value)

    @rule(key=keys.filter(lambda key: key not in LASTING))
    def withdraw(self, key: str) -> None:
        self.wanted.pop(key, None)
        self.publisher.remove(key)

    @rule(steps=st.integers(1, 30))
    def some_turns(self, steps: int) -> None:
        self.turns(steps)

    @rule(seconds=st.sampled_from([0.1, 1, 20, 61, 130, 310, 1000]))
    def time_passes(self, seconds: float) -> None:
        self.pass_time(seconds)

    @rule(ahead=st.sets(st.integers(1, 12), max_size=3), lost=st.booleans())
    def steps_fail(self, ahead: set[int], lost: bool) -> None:
        failing = self.store.lose_in if lost else self.store.fail_in
        failing.update(self.store.steps + one for one in ahead)

    @rule()
    def outage(self) -> None:
        self.store.outage()

    @rule()
    def heal(self) -> None:
        self.store.heal()

    @rule()
    def compact(self) -> None:
        self.store.compact()

    @rule()
    def back_up(self) -> None:
        self.backup = self.store.snapshot()

    @precondition(lambda self: self.backup is not None)
    @rule()
    def restore(self) -> None:
        self.store.restore(self.backup)

    @rule(cluster_id=st.sampled_from([1, 1, 2]))
    def wipe(self, cluster_id: int) -> None:
        self.backup = None
        self.store.replace_cluster_id(cluster_id)

    @rule(away=st.sampled_from([0.0, 30.0, 2000.0]))
    def restart_publisher(self, away: float) -> None:
        self.stop(self.publisher_task)
        self.reports.pop("publisher", None)
        self.pass_time(away)
        self.start_publisher()

    @invariant()
    def nothing_is_gone_that_the_source_still_has(self) -> None:
        assert self.wrongly_gone == []

    def teardown(self) -> None:
        try:
            self.store.heal()
            self.store.fail_in.clear()
            self.store.lose_in.clear()
            self.pass_time(400)
            held = {key: one.value for key, one in self.store._entries.items() if key[:2] == "p/"}
            assert held == self.wanted
            assert self.picture == self.wanted
            assert self.wrongly_gone == []
            assert set(self.reports.values()) <= {None}
        finally:
            for task in (*self.tasks, self.publisher_task):
                self.stop(task)
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()


TestMesh = Mesh.TestCase
TestMesh.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
