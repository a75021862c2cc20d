"""A publisher makes wishes come true: once, in order, and again when they are undone."""

import asyncio
from collections.abc import Sequence
from contextlib import asynccontextmanager

from kvstore.client import DeleteOp, Entry, PutOp, Unavailable, WriteOp
from kvstore.memory import MemoryStore
from kvstore.publish import Publisher, PublishSettings
from kvstore.watch import ending
from tests.support.clock import settle, virtual
from tests.support.store_contract import everything


class Recorded(MemoryStore):
    """A store that remembers the transactions it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: list[list[WriteOp]] = []
        self.break_after = -1
        """The commit of this number is done, but its answer is lost."""

    async def commit(self, ops: Sequence[WriteOp]) -> int:
        revision = await super().commit(ops)
        self.commits.append(list(ops))
        if len(self.commits) - 1 == self.break_after:
            raise Unavailable("the answer was lost")
        return revision

    async def keys(self, prefix: str = "") -> dict[str, bytes]:
        return {entry.key: entry.value for entry in (await everything(self, prefix))[0]}


@asynccontextmanager
async def publishing(store: MemoryStore, **settings: float):
    reports: list[str | None] = []
    publisher = Publisher(store, PublishSettings(**settings), report=reports.append)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(publisher.run())
        try:
            yield publisher, reports
        finally:
            task.cancel()


def keys_of(ops: Sequence[WriteOp]) -> list[str]:
    return [op.key for op in ops if isinstance(op, PutOp | DeleteOp)]


@virtual
async def test_an_idle_publisher_writes_at_once() -> None:
    store = Recorded()
    async with publishing(store) as (publisher, _):
        await settle()
        publisher.put("a", b"1")
        await settle(20)
        assert await store.keys() == {"a": b"1"}
        assert publisher.pending == 0


@virtual
async def test_what_is_wished_for_meanwhile_goes_together() -> None:
    store = Recorded()
    async with publishing(store) as (publisher, _):
        for at in range(300):
            publisher.put(f"k{at:03}", b"")
        await publisher.flushed()
        assert [len(ops) for ops in store.commits] == [128, 128, 44]
        assert [key for ops in store.commits for key in keys_of(ops)] == sorted(await store.keys())


@virtual
async def test_large_values_are_spread_over_transactions() -> None:
    store = Recorded()
    async with publishing(store) as (publisher, _):
        for at in range(6):
            publisher.put(f"k{at}", b"x" * 400_000)
        await publisher.flushed()
        assert [len(ops) for ops in store.commits] == [2, 2, 2]


@virtual
async def test_only_the_newest_wish_for_a_key_is_written() -> None:
    store = Recorded()
    async with publishing(store) as (publisher, _):
        for at in range(100):
            publisher.put("a", str(at).encode())
        publisher.put("b", b"")
        publisher.remove("b")
        await publisher.flushed()
        assert [keys_of(ops) for ops in store.commits] == [["a"]]
        assert await store.keys() == {"a": b"99"}


@virtual
async def test_an_equal_wish_costs_nothing() -> None:
    store = Recorded()
    async with publishing(store) as (publisher, _):
        publisher.put("a", b"1")
        await publisher.flushed()
        publisher.put("a", b"1")
        publisher.put("a", b"2")
        publisher.put("a", b"1")
        publisher.remove("never there")
        await publisher.flushed()
        await settle()
        assert len(store.commits) == 1


@virtual
async def test_a_first_wish_is_written_whatever_the_store_holds() -> None:
    store = Recorded()
    await store.commit([PutOp("a", b"1")])
    async with publishing(store) as (publisher, _):
        publisher.put("a", b"1")
        await publisher.flushed()
        found = await store.get("a")
        assert found is not None
        assert found.lease != 0, "it hangs on a lease of ours now"


@virtual
async def test_an_outage_loses_no_wish() -> None:
    store = Recorded()
    async with publishing(store) as (publisher, reports):
        store.outage()
        publisher.put("a", b"1")
        publisher.put("b", b"1")
        publisher.remove("b")
        await asyncio.sleep(1000)
        assert publisher.pending == 1
        assert "1 keys are not published: the store is out of order; trying again in" in str(
            reports[-1]
        )
        store.heal()
        await publisher.flushed()
        await settle()
        assert await store.keys() == {"a": b"1"}
        assert reports[-1] is None


@virtual
async def test_a_write_whose_answer_was_lost_is_repeated() -> None:
    store = Recorded()
    async with publishing(store) as (publisher, _):
        store.break_after = 0
        publisher.put("a", b"1")
        await settle()
        assert await store.keys() == {"a": b"1"}
        assert publisher.pending == 1
        publisher.remove("a")
        await publisher.flushed()
        assert await store.keys() == {}


@virtual
async def test_a_canary_comes_after_everything_before_it() -> None:
    store = Recorded()
    async with publishing(store) as (publisher, _):
        publisher.synced("canary", b"first")
        for at in range(200):
            publisher.put(f"k{at}", b"")
        publisher.synced("canary", b"second")
        store.break_after = 0
        await publisher.flushed()
        order = [key for ops in store.commits for key in keys_of(ops)]
        assert order[-1] == "canary"
        assert order.count("canary") == 1


@virtual
async def test_leases_hold_a_thousand_keys_at_most() -> None:
    store = Recorded()
    async with publishing(store, lease_keys=100) as (publisher, _):
        for at in range(250):
            publisher.put(f"k{at}", b"")
        await publisher.flushed()
        by_lease = _by_lease((await everything(store, ""))[0])
        assert sorted(map(len, by_lease.values())) == [50, 100, 100]
        for at in range(90):
            publisher.remove(f"k{at}")
        for at in range(130):
            publisher.put(f"new{at}", b"")
        await publisher.flushed()
        by_lease = _by_lease((await everything(store, ""))[0])
        assert sum(map(len, by_lease.values())) == 290
        assert max(map(len, by_lease.values())) <= 100


@virtual
async def test_leases_are_kept_alive() -> None:
    store = Recorded()
    async with publishing(store, lease_ttl=900) as (publisher, _):
        publisher.put("a", b"1")
        await publisher.flushed()
        for _ in range(100):
            await asyncio.sleep(299)
            store.advance(299)
        assert await store.keys() == {"a": b"1"}
        assert len(store.commits) == 1


class Slow(Recorded):
    """Every write and renewal takes a while, and time passes for the store as well."""

    def __init__(self) -> None:
        super().__init__()
        self.delay = 1.0
        self.renewed: list[tuple[int, int]] = []
        """How many transactions there had been, and which lease."""

    async def commit(self, ops: Sequence[WriteOp]) -> int:
        await asyncio.sleep(self.delay)
        self.advance(self.delay)
        return await super().commit(ops)

    async def keep_alive(self, lease: int) -> float:
        self.renewed.append((len(self.commits), lease))
        await asyncio.sleep(0.1)
        self.advance(0.1)
        return await super().keep_alive(lease)


@virtual
async def test_leases_are_kept_alive_though_there_is_always_something_to_write() -> None:
    store = Slow()
    async with publishing(store, lease_ttl=90) as (publisher, _):
        for turn in range(400):
            for at in range(200):
                publisher.put(f"k{at}", b"%d" % turn)
            await asyncio.sleep(1)
            assert publisher.pending
        assert set(store._leases) == {1}, "the one lease lives, and no other was needed"


@virtual
async def test_many_leases_are_renewed_while_writing_goes_on() -> None:
    store = Slow()
    async with publishing(store, lease_ttl=900, lease_keys=2) as (publisher, _):
        store.delay = 0.0
        for at in range(200):
            publisher.put(f"k{at}", b"")
        await publisher.flushed()
        store.delay = 1.0
        await asyncio.sleep(298)
        before = len(store.commits)
        for turn in range(40):
            publisher.put("k0", b"%d" % turn)
            await asyncio.sleep(1)
        renewed = [commits for commits, _ in store.renewed]
        assert len(renewed) >= 100, "all of them"
        assert max(renewed) - min(renewed) >= 5, "not one after the other while a wish waits"
        assert len(store.commits) - before >= 15
        assert len(store._leases) == 100


@virtual
async def test_losing_a_lease_writes_exactly_its_keys_again_and_its_canary_last() -> None:
    store = Recorded()
    async with publishing(store, lease_keys=100) as (publisher, _):
        publisher.synced("canary", b"")
        for at in range(150):
            publisher.put(f"k{at}", b"")
        publisher.put("k0", b"new")
        await publisher.flushed()
        entries, _ = await everything(store, "")
        lease = next(entry.lease for entry in entries if entry.key == "canary")
        lost = {entry.key for entry in entries if entry.lease == lease}
        before = await store.keys()
        store.commits.clear()
        await store.revoke(lease)
        assert len(await store.keys()) == 51
        await asyncio.sleep(301)
        assert await store.keys() == before
        written = [key for ops in store.commits for key in keys_of(ops)]
        assert set(written) == lost
        assert len(written) == len(lost) == 100
        assert written[-1] == "canary"


@virtual
async def test_a_new_connection_is_reason_to_look_after_the_leases() -> None:
    store = Recorded()
    async with publishing(store) as (publisher, _):
        publisher.put("a", b"1")
        await publisher.flushed()
        store.outage()
        store.advance(901)
        await settle()
        store.heal()
        await asyncio.sleep(1)
        assert await store.keys() == {"a": b"1"}


@virtual
async def test_a_lease_that_ends_between_two_writes_is_replaced() -> None:
    store = Recorded()
    async with publishing(store) as (publisher, _):
        publisher.put("a", b"1")
        await publisher.flushed()
        store.advance(901)
        publisher.put("b", b"1")
        await publisher.flushed()
        assert await store.keys() == {"a": b"1", "b": b"1"}


@virtual
async def test_without_leases_keys_stay() -> None:
    store = Recorded()
    async with publishing(store, lease_ttl=0) as (publisher, _):
        publisher.put("a", b"1")
        await publisher.flushed()
        store.advance(1e9)
        assert await store.keys() == {"a": b"1"}


@virtual
async def test_a_sweep_removes_what_an_earlier_life_left_and_nothing_else() -> None:
    store = Recorded()
    await store.commit([PutOp(key, b"old") for key in ("p/kept", "p/left", "q/left", "r/other's")])
    async with publishing(store) as (publisher, _):
        publisher.put("p/kept", b"new")
        publisher.put("p/more", b"new")
        assert await publisher.sweep(["p/", "q/"]) == 2
        assert await store.keys() == {"p/kept": b"new", "p/more": b"new", "r/other's": b"old"}


@virtual
async def test_a_sweep_waits_for_a_store_that_is_away() -> None:
    store = Recorded()
    await store.commit([PutOp("p/left", b"")])
    async with publishing(store) as (publisher, _), asyncio.TaskGroup() as tasks:
        store.outage()
        sweeping = tasks.create_task(publisher.sweep(["p/"]))
        await asyncio.sleep(100)
        assert not sweeping.done()
        store.heal()
        assert await sweeping == 1
        assert await store.keys() == {}


@virtual
async def test_a_wiped_store_is_filled_again_canaries_last() -> None:
    store = Recorded()
    async with publishing(store) as (publisher, _):
        publisher.put("config", b"1")
        publisher.put("p/a", b"1")
        publisher.synced("canary", b"1")
        publisher.put("p/b", b"1")
        await publisher.sweep(["p/"])
        before = await store.keys()
        store.commits.clear()
        store.replace_cluster_id(1)
        await asyncio.sleep(1)
        assert await store.keys() == before
        assert [key for ops in store.commits for key in keys_of(ops)] == [
            "config",
            "p/a",
            "p/b",
            "canary",
        ]


@virtual
async def test_a_restored_store_is_repaired_and_its_ghosts_removed() -> None:
    store = Recorded()
    async with publishing(store) as (publisher, _):
        for key in ("config", "p/a", "p/b", "p/c"):
            publisher.put(key, b"1")
        publisher.synced("canary", b"1")
        await publisher.sweep(["p/"])
        backup = store.snapshot()
        publisher.remove("p/a")
        publisher.put("p/b", b"2")
        publisher.put("p/d", b"1")
        await publisher.flushed()
        before = await store.keys()
        store.restore(backup)
        store.commits.clear()
        await asyncio.sleep(1)
        assert await store.keys() == before
        rewritten = [key for ops in store.commits for key in keys_of(ops)]
        assert "p/c" not in rewritten, "it was right all the time"


@virtual
async def test_a_store_that_was_only_away_is_left_alone() -> None:
    store = Recorded()
    async with publishing(store) as (publisher, _):
        publisher.put("a", b"1")
        publisher.put("b", b"1")
        await publisher.flushed()
        publisher.remove("b")
        await publisher.flushed()
        store.outage()
        await asyncio.sleep(10)
        store.heal()
        await asyncio.sleep(10)
        assert len(store.commits) == 2


@virtual
async def test_a_value_that_is_never_taken_harms_no_other() -> None:
    store = Recorded()
    async with publishing(store, batch_bytes=100 << 20) as (publisher, reports):
        for at in range(10):
            publisher.put(f"k{at}", b"x")
        publisher.put("huge", b"x" * (2 << 20))
        publisher.synced("canary", b"")
        await publisher.flushed()
        await settle()
        assert set(await store.keys()) == {"canary", *(f"k{at}" for at in range(10))}
        assert publisher.refused == ("huge",)
        assert reports[-1] == "the store does not take the values of 1 keys, first huge"
        publisher.put("huge", b"x" * (2 << 20))
        assert publisher.pending == 0, "it will not be taken the second time either"
        publisher.put("huge", b"smaller")
        await publisher.flushed()
        await settle()
        assert publisher.refused == ()
        assert (await store.keys())["huge"] == b"smaller"
        assert reports[-1] is None


@virtual
async def test_a_refused_value_leaves_the_old_one() -> None:
    store = Recorded()
    async with publishing(store) as (publisher, _):
        publisher.put("a", b"old")
        await publisher.flushed()
        publisher.put("a", b"x" * (2 << 20))
        await publisher.flushed()
        assert await store.keys() == {"a": b"old"}
        publisher.remove("a")
        await publisher.flushed()
        assert await store.keys() == {}


@virtual
async def test_what_it_writes_is_seen_in_whole_revisions() -> None:
    store = Recorded()
    async with publishing(store) as (publisher, _):
        for at in range(256):
            publisher.put(f"k{at}", b"")
        await publisher.flushed()
    async with ending(store.changes("", after=1)) as batches:
        assert [len((await anext(batches)).events) for _ in range(3)] == [0, 128, 128]


def _by_lease(entries: Sequence[Entry]) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for entry in entries:
        found.setdefault(entry.lease, set()).add(entry.key)
    return found
