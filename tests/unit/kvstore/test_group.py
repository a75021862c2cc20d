"""Many small writers, few transactions."""

import asyncio
from collections.abc import Sequence

import pytest

from kvstore.client import Conflict, LeaseGone, PutOp, Refused, StoreError, Unavailable, WriteOp
from kvstore.group import MOST, ROOM, SMALL, Grouping
from kvstore.memory import MemoryStore
from tests.support.clock import virtual

ROUND_TRIP = 0.01


class Slow:
    """A store that takes its time, and what it was asked."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.asked: list[list[str]] = []
        self.failures: list[StoreError] = []

    async def commit(self, ops: Sequence[WriteOp]) -> int:
        self.asked.append([op.key for op in ops if isinstance(op, PutOp)])
        await asyncio.sleep(ROUND_TRIP)
        if self.failures:
            raise self.failures.pop(0)
        return await self.store.commit(ops)

    def grouping(self) -> Grouping:
        return Grouping(self.commit)


def puts(name: str, count: int = 1, value: bytes = b"x", lease: int = 0) -> list[PutOp]:
    return [PutOp(f"{name}/{at}", value, lease) for at in range(count)]


async def settled(*tasks: asyncio.Task[int]) -> list[int | BaseException]:
    await asyncio.wait(tasks)
    return [task.exception() or task.result() for task in tasks]


@virtual
async def test_what_comes_alone_is_written_at_once() -> None:
    slow = Slow()
    group, clock = slow.grouping(), asyncio.get_running_loop().time
    assert await group.commit(puts("a")) == 2
    assert await group.commit(puts("b")) == 3
    assert clock() == pytest.approx(2 * ROUND_TRIP)


@virtual
async def test_what_comes_while_another_is_written_goes_together() -> None:
    slow = Slow()
    group, clock = slow.grouping(), asyncio.get_running_loop().time
    async with asyncio.TaskGroup() as tasks:
        made = [tasks.create_task(group.commit(puts(f"c{at}"))) for at in range(50)]
    assert slow.asked == [["c0/0"], [f"c{at}/0" for at in range(1, 50)]]
    assert [task.result() for task in made] == [2] + [3] * 49
    assert clock() == pytest.approx(2 * ROUND_TRIP)
    assert len(slow.store.snapshot().entries) == 50


@virtual
async def test_a_transaction_is_never_too_large() -> None:
    slow = Slow()
    group = slow.grouping()
    async with asyncio.TaskGroup() as tasks:
        for at in range(9):
            tasks.create_task(group.commit(puts(f"many{at}", SMALL)))
    assert max(map(len, slow.asked)) == MOST
    slow.asked.clear()
    async with asyncio.TaskGroup() as tasks:
        for at in range(5):
            tasks.create_task(group.commit(puts(f"large{at}", 1, bytes(ROOM // 2 - 100))))
    assert list(map(len, slow.asked)) == [1, 2, 2]


@virtual
async def test_what_is_large_waits_for_nobody() -> None:
    slow = Slow()
    group = slow.grouping()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(group.commit(puts("small")))
        tasks.create_task(group.commit(puts("large", SMALL + 1)))
    assert asyncio.get_running_loop().time() == pytest.approx(ROUND_TRIP)


@virtual
async def test_nobody_hears_of_anothers_mistake() -> None:
    slow = Slow()
    group = slow.grouping()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(group.commit(puts("first")))
        good = tasks.create_task(group.commit(puts("good")))
        bad = asyncio.create_task(group.commit(puts("bad", lease=99)))
        fine = tasks.create_task(group.commit(puts("fine")))
        outcomes = await settled(bad)
    assert isinstance(outcomes[0], LeaseGone)
    assert {good.result(), fine.result()} == {3, 4}
    assert {*slow.store.snapshot().entries} == {"first/0", "good/0", "fine/0"}
    assert slow.asked[1] == ["good/0", "bad/0", "fine/0"]
    assert sorted(slow.asked[2:]) == [["bad/0"], ["fine/0"], ["good/0"]]


@virtual
@pytest.mark.parametrize("failure", [Conflict("no"), Refused("no"), Unavailable("no")])
async def test_who_writes_alone_hears_why_it_failed(failure: StoreError) -> None:
    slow = Slow()
    slow.failures = [failure]
    with pytest.raises(type(failure)):
        await slow.grouping().commit(puts("a"))


@virtual
async def test_an_outage_is_everybodys() -> None:
    slow = Slow()
    group = slow.grouping()
    slow.failures = [Unavailable("gone")] * 2
    tasks = [asyncio.create_task(group.commit(puts(f"c{at}"))) for at in range(4)]
    outcomes = await settled(*tasks)
    assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
    assert len(slow.asked) == 2
    assert await group.commit(puts("later")) == 2


@virtual
async def test_who_is_stopped_takes_nobody_along_unheard() -> None:
    """Its companions cannot know whether they were written; who waits is written later."""
    slow = Slow()
    group = slow.grouping()
    tasks = [asyncio.create_task(group.commit(puts(f"c{at}"))) for at in range(4)]
    await asyncio.sleep(ROUND_TRIP * 1.5)  # c1 is writing for c2 and c3
    late, gone = (asyncio.create_task(group.commit(puts(name))) for name in ("late", "gone"))
    await asyncio.sleep(0)
    tasks[1].cancel()
    gone.cancel()
    await asyncio.wait((*tasks, late, gone))
    assert tasks[1].cancelled()
    assert isinstance(tasks[2].exception(), Unavailable)
    assert isinstance(tasks[3].exception(), Unavailable)
    assert late.result() == 3
    assert slow.asked == [["c0/0"], ["c1/0", "c2/0", "c3/0"], ["late/0"]]


@virtual
async def test_one_who_was_stopped_is_not_tried_alone() -> None:
    """Nobody would take its part away again, and nothing goes beside a part that is to go alone."""
    slow = Slow()
    group = slow.grouping()
    tasks = [asyncio.create_task(group.commit(puts(f"c{at}"))) for at in range(3)]
    await asyncio.sleep(ROUND_TRIP * 1.5)  # c1 is writing for c2
    slow.failures = [Conflict("no")]
    tasks[2].cancel()
    await asyncio.wait(tasks)
    assert tasks[2].cancelled()
    await asyncio.gather(*(group.commit(puts(f"d{at}")) for at in range(9)))
    assert slow.asked[:3] == [["c0/0"], ["c1/0", "c2/0"], ["c1/0"]]
    assert [len(keys) for keys in slow.asked[3:]] == [1, 8]
