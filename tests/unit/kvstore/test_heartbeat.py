"""The heartbeat rule: what counts is that beats arrive."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from kvstore.client import DeleteOp, PutOp
from kvstore.heartbeat import KEY, Heartbeat, HeartbeatSettings, Pulse
from kvstore.memory import MemoryStore
from tests.support.clock import settle, virtual

NOON = 1_790_000_000.0  # 2026-09-21T14:13:20Z


@asynccontextmanager
async def beating(store: MemoryStore, limit: float = 120, pulse: Pulse | None = None):
    alarms: list[str] = []
    heartbeat = Heartbeat(
        store,
        HeartbeatSettings(limit=limit),
        pulse=pulse,
        on_stale=alarms.append,
        clock=lambda: NOON,
    )
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(heartbeat.run())
        await settle()
        try:
            yield heartbeat, alarms
        finally:
            task.cancel()


async def beat(store: MemoryStore, value: bytes) -> None:
    await store.commit([PutOp(KEY, value)])
    await settle()


@virtual
async def test_a_peer_has_the_whole_limit_for_its_first_beat() -> None:
    async with beating(MemoryStore()) as (heartbeat, alarms):
        await asyncio.sleep(119)
        assert heartbeat.fresh
        await asyncio.sleep(2)
        assert not heartbeat.fresh
        assert alarms == ["no heartbeat for 120 s, more than the limit of 120 s"]


@virtual
async def test_a_beat_that_is_there_already_counts_once() -> None:
    store = MemoryStore()
    await store.commit([PutOp(KEY, b"long ago")])
    async with beating(store) as (heartbeat, _):
        await asyncio.sleep(100)
        store.outage()
        await settle()
        store.heal()
        await asyncio.sleep(30)
        assert not heartbeat.fresh, "listed again unchanged: its producer may be dead"


@virtual
async def test_a_beat_of_a_long_absence_is_as_old_as_the_absence() -> None:
    store = MemoryStore()
    async with beating(store) as (heartbeat, _):
        await beat(store, b"1")
        store.outage()
        await settle()
        store.heal()
        await store.commit([PutOp(KEY, b"2")])
        store.outage()
        await asyncio.sleep(1000)
        store.heal()
        await settle()
        assert heartbeat.age() >= 1000
        assert not heartbeat.fresh
        await beat(store, b"3")
        assert heartbeat.fresh


@virtual
async def test_a_beat_of_a_short_absence_counts_from_its_beginning() -> None:
    store = MemoryStore()
    async with beating(store) as (heartbeat, _):
        await asyncio.sleep(100)
        store.outage()
        await asyncio.sleep(50)
        await _write_unseen(store)
        store.heal()
        await asyncio.sleep(60)
        assert heartbeat.fresh
        assert 50 <= heartbeat.age() <= 111


async def _write_unseen(store: MemoryStore) -> None:
    """Somebody else's connection is not broken."""
    store._failure, failure = None, store._failure
    await store.commit([PutOp(KEY, b"unseen")])
    store._failure = failure


@virtual
async def test_beats_keep_it_fresh_whatever_they_say() -> None:
    store = MemoryStore()
    async with beating(store) as (heartbeat, alarms):
        for _ in range(20):
            await asyncio.sleep(60)
            await beat(store, b"1970-01-01T00:00:00Z")
            assert heartbeat.fresh
            assert heartbeat.age() == 0
        assert alarms == []


@virtual
async def test_it_knows_which_beat_ended_the_last_silence() -> None:
    store = MemoryStore()
    backup = store.snapshot()
    async with beating(store) as (heartbeat, _):
        await beat(store, b"1")
        assert heartbeat.since() == 0
        await asyncio.sleep(121)
        await beat(store, b"2")
        await beat(store, b"3")
        assert heartbeat.since() == 3
        store.restore(backup)
        await asyncio.sleep(1)
        await beat(store, b"4")
        assert heartbeat.since() == 2, "revisions of another past say nothing about this one"


@virtual
async def test_that_the_beat_is_deleted_is_not_a_beat() -> None:
    store = MemoryStore()
    async with beating(store) as (heartbeat, _):
        await beat(store, b"1")
        await asyncio.sleep(119)
        await store.commit([DeleteOp(KEY)])
        await asyncio.sleep(2)
        assert not heartbeat.fresh


@virtual
async def test_waiting_ends_with_the_next_beat() -> None:
    store = MemoryStore()
    async with beating(store) as (heartbeat, alarms):
        await asyncio.sleep(1000)
        assert len(alarms) == 8, "told again each time that another limit has passed"
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(heartbeat.wait())
            await settle()
            assert not waiting.done()
            await beat(store, b"1")
        assert heartbeat.open()


@virtual
async def test_a_longer_key_is_not_the_heartbeat() -> None:
    store = MemoryStore()
    async with beating(store, limit=10) as (heartbeat, _):
        await asyncio.sleep(9)
        await store.commit([PutOp(KEY + "x", b"")])
        await asyncio.sleep(2)
        assert not heartbeat.fresh


@virtual
async def test_a_new_connection_does_not_wake_the_dead() -> None:
    store, pulse = MemoryStore(), Pulse()
    await store.commit([PutOp(KEY, b"1")])
    async with beating(store, pulse=pulse):
        await asyncio.sleep(100)
    async with beating(store, pulse=pulse) as (heartbeat, _):
        await asyncio.sleep(21)
        assert not heartbeat.fresh, "the same beat as before"
        await beat(store, b"2")
        assert heartbeat.fresh
    await asyncio.sleep(130)
    await store.commit([PutOp(KEY, b"3")])
    async with beating(store, pulse=pulse) as (heartbeat, _):
        assert not heartbeat.fresh, "who knows when that was"


@virtual
async def test_a_beat_that_comes_proves_that_the_peer_lives() -> None:
    store, pulse = MemoryStore(), Pulse()
    await store.commit([PutOp(KEY, b"1")])
    async with beating(store, pulse=pulse) as (heartbeat, _):
        assert heartbeat.fresh
        assert not heartbeat.proven()
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(heartbeat.prove())
            await settle()
            assert not waiting.done()
            await beat(store, b"2")
        assert heartbeat.proven()
    async with beating(store, pulse=pulse) as (heartbeat, _):
        assert heartbeat.proven(), "it was heard on the connection before"
        await asyncio.sleep(121)
        assert not heartbeat.proven()


@virtual
@pytest.mark.parametrize(
    ("value", "proven"),
    [
        (b"2026-09-21T14:13:00Z", True),
        (b"2026-09-21T16:13:00+02:00", True),
        (b"2026-09-21T14:14:00Z", True),  # their clock is ahead of ours
        (b"2026-09-21T14:11:00Z", False),
        (b"2026-09-21T14:13:00", False),
        (b"noon", False),
        (b"\xff", False),
    ],
)
async def test_a_beat_that_is_there_proves_something_if_it_is_of_now(
    value: bytes, *, proven: bool
) -> None:
    store = MemoryStore()
    await store.commit([PutOp(KEY, value)])
    async with beating(store) as (heartbeat, _):
        assert heartbeat.proven() is proven
