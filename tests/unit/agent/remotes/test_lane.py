"""Bulk work of many takes turns, and rests for those who have little to do."""

import asyncio
from functools import partial

import pytest

from agent.remotes.lane import REST, WORK, Lane
from tests.support.clock import virtual


async def test_lists_take_turns() -> None:
    lane, done = Lane(), list[str]()

    async def read(name: str) -> None:
        for _ in range(3):
            await lane.take(partial(done.append, name))
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks:
        for name in "abc":
            tasks.create_task(read(name))
    assert "".join(done) == "abcabcabc"


@virtual
async def test_after_enough_work_everybody_else_has_time() -> None:
    now, loop = 0.0, asyncio.get_running_loop()
    lane = Lane(lambda: now)
    rested = []

    def work() -> None:
        nonlocal now
        now += WORK / 2

    for _ in range(4):
        began = loop.time()
        await lane.take(work)
        rested.append(loop.time() - began)
    assert rested == pytest.approx([0.0, REST, 0.0, REST])


async def test_work_that_fails_keeps_nobody_out() -> None:
    lane, done = Lane(), list[int]()
    with pytest.raises(ZeroDivisionError):
        await lane.take(lambda: done.append(1 // 0))
    await lane.take(partial(done.append, 1))
    assert done == [1]
