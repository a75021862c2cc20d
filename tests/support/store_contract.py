"""What every store must do: the same tests for memory and for each etcd."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager

import pytest

from kvstore.client import (
    Batch,
    Conflict,
    DeleteOp,
    DeletePrefixOp,
    Entry,
    HistoryLost,
    LeaseGone,
    Point,
    PutOp,
    Reader,
    Refused,
    Store,
)
from kvstore.events import Change, Delete, Put
from kvstore.update import update_if_different
from kvstore.watch import ending

_numbers = itertools.count()


async def everything(store: Reader, prefix: str) -> tuple[list[Entry], int]:
    """All entries under a prefix, and the revision they are of."""
    pages = [page async for page in store.pages(prefix)]
    return [entry for page in pages for entry in page.entries], pages[0].revision


async def end_of(store: Reader, prefix: str) -> Point:
    """Where a listing of now ends."""
    return [page.point async for page in store.pages(prefix)][-1]


async def first_changes(batches: AsyncIterator[Batch], count: int) -> list[Change]:
    """As many changes as asked for; whole batches."""
    found: list[Change] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            found += (await anext(batches)).events
    return found


class StoreContract:
    """Inherit, and say how to open a store and how to compact it."""

    def open(self, **settings: object) -> AbstractAsyncContextManager[Store]:
        """A store whose pages hold ``first_page_keys`` keys."""
        raise NotImplementedError

    async def compact(self, _: Store, revision: int) -> None:
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def _fresh_prefix(self) -> None:
        self.root = f"contract/{next(_numbers)}/"

    def key(self, name: object) -> str:
        return f"{self.root}{name}"

    def puts(self, names: Sequence[object], value: bytes = b"v") -> list[PutOp]:
        return [PutOp(self.key(name), value) for name in names]

    async def test_a_key_that_is_not_there_is_none(self) -> None:
        async with self.open() as store:
            assert await store.get(self.key("absent")) is None

    async def test_a_key_is_read_as_it_was_written(self) -> None:
        async with self.open() as store:
            revision = await store.commit([PutOp(self.key("a"), b"1")])
            assert await store.get(self.key("a")) == Entry(self.key("a"), b"1", revision)

    async def test_one_transaction_is_one_revision(self) -> None:
        async with self.open() as store:
            revision = await store.commit(self.puts(range(5)))
            entries, now = await everything(store, self.root)
            assert {entry.revision for entry in entries} == {revision}
            assert now >= revision

    async def test_an_empty_listing_is_one_page_with_a_revision(self) -> None:
        async with self.open() as store:
            revision = await store.commit([PutOp("elsewhere", b"")])
            pages = [page async for page in store.pages(self.root)]
            assert [(page.entries, page.revision) for page in pages] == [([], revision)]

    async def test_a_listing_is_in_key_order_and_of_one_revision(self) -> None:
        async with self.open(first_page_keys=3, page_keys=3) as store:
            await store.commit(self.puts(["b", "a", "é", "c/d", "c", "B", "\udcff"]))
            pages = []
            async with ending(store.pages(self.root)) as listing:
                async for page in listing:
                    pages.append(page)
                    await store.commit([PutOp(self.key("late"), b""), DeleteOp(self.key("é"))])
            assert len({page.revision for page in pages}) == 1
            names = [entry.key.removeprefix(self.root) for page in pages for entry in page.entries]
            assert names == ["B", "a", "b", "c", "c/d", "é", "\udcff"]

    async def test_a_prefix_is_exact(self) -> None:
        async with self.open() as store:
            await store.commit(self.puts(["x/1", "x0", "x", "w/1"]))
            entries, _ = await everything(store, self.key("x/"))
            assert [entry.key for entry in entries] == [self.key("x/1")]

    async def test_any_bytes_survive_as_key_and_value(self) -> None:
        async with self.open() as store:
            odd = [
                PutOp(self.key("\udcff\udc80"), b"\x00\xff"),
                PutOp(self.key("empty"), b""),
                PutOp(self.key("\N{SNOWMAN} \n"), bytes(range(256))),
                PutOp(self.key("big"), b"x" * (1 << 20)),
            ]
            await store.commit(odd)
            entries, revision = await everything(store, self.root)
            assert {(entry.key, entry.value) for entry in entries} == {
                (op.key, op.value) for op in odd
            }
            async with ending(store.changes(self.root, after=revision - 1)) as batches:
                assert {event.key for event in await first_changes(batches, 4)} == {
                    op.key for op in odd
                }

    async def test_changes_come_in_order_from_where_one_asked(self) -> None:
        async with self.open() as store:
            first = await store.commit([PutOp(self.key("a"), b"1")])
            second = await store.commit([PutOp(self.key("a"), b"2")])
            third = await store.commit([DeleteOp(self.key("a"))])
            async with ending(store.changes(self.root, after=first)) as batches:
                assert await first_changes(batches, 2) == [
                    Put(self.key("a"), b"2", second),
                    Delete(self.key("a"), third),
                ]
                fourth = await store.commit([PutOp(self.key("b"), b"3")])
                assert await first_changes(batches, 1) == [Put(self.key("b"), b"3", fourth)]

    async def test_a_transaction_is_never_seen_in_part(self) -> None:
        async with self.open() as store:
            _, revision = await everything(store, self.root)
            async with ending(store.changes(self.root, after=revision)) as batches:
                await anext(batches)
                for round_ in range(5):
                    ops = [
                        *self.puts(range(round_, round_ + 100)),
                        DeleteOp(self.key(round_ - 1)),
                    ]
                    await store.commit(ops)
                seen = 0
                while seen < 5:
                    batch = await anext(batches)
                    for change_revision in {event.revision for event in batch.events}:
                        whole = [one for one in batch.events if one.revision == change_revision]
                        assert len(whole) == (100 if seen == 0 else 101)
                        seen += 1

    async def test_other_prefixes_are_not_seen(self) -> None:
        async with self.open() as store:
            _, revision = await everything(store, self.key("x/"))
            await store.commit(self.puts(["x0", "x", "w/1"]))
            last = await store.commit(self.puts(["x/1"]))
            async with ending(store.changes(self.key("x/"), after=revision)) as batches:
                assert await first_changes(batches, 1) == [Put(self.key("x/1"), b"v", last)]

    async def test_many_watches_each_see_their_own(self) -> None:
        async with self.open() as store:
            _, revision = await everything(store, self.root)
            names = [f"{at}/" for at in range(20)]

            async def watch(name: str) -> list[Change]:
                async with ending(store.changes(self.key(name), after=revision)) as batches:
                    return await first_changes(batches, 3)

            async with asyncio.TaskGroup() as tasks:
                watching = {name: tasks.create_task(watch(name)) for name in names}
                for at in range(3):
                    await store.commit(self.puts([f"{name}{at}" for name in names]))
            for name, task in watching.items():
                assert [one.key for one in task.result()] == [
                    self.key(f"{name}{at}") for at in range(3)
                ]

    async def test_a_watch_that_stands_says_so(self) -> None:
        async with self.open() as store:
            _, revision = await everything(store, self.root)
            async with ending(store.changes(self.root, after=revision)) as batches:
                async with asyncio.timeout(10):
                    first = await anext(batches)
            assert (list(first.events), first.revision) == ([], revision)

    async def test_a_revision_still_to_come_is_of_another_history(self) -> None:
        async with self.open() as store:
            _, revision = await everything(store, self.root)
            async with ending(store.changes(self.root, after=revision + 1000)) as batches:
                with pytest.raises(HistoryLost):
                    await anext(batches)

    async def test_a_compacted_past_is_lost(self) -> None:
        async with self.open() as store:
            _, revision = await everything(store, self.root)
            for at in range(5):
                last = await store.commit(self.puts([at]))
            await self.compact(store, last)
            async with ending(store.changes(self.root, after=revision)) as batches:
                with pytest.raises(HistoryLost):
                    await first_changes(batches, 1)

    async def test_compaction_during_a_listing_voids_it(self) -> None:
        async with self.open(first_page_keys=2, page_keys=2) as store:
            await store.commit(self.puts(range(50)))
            async with ending(store.pages(self.root)) as pages:
                await anext(pages)
                last = await store.commit(self.puts(["more"]))
                await self.compact(store, last)
                with pytest.raises(HistoryLost):
                    async for _ in pages:
                        pass

    async def test_create_takes_only_what_is_not_there(self) -> None:
        async with self.open() as store:
            await store.create(PutOp(self.key("a"), b"1"))
            with pytest.raises(Conflict):
                await store.create(PutOp(self.key("a"), b"2"))
            found = await store.get(self.key("a"))
            assert found is not None
            assert found.value == b"1"

    async def test_swap_takes_only_what_is_as_expected(self) -> None:
        async with self.open() as store:
            first = await store.commit([PutOp(self.key("a"), b"1")])
            second = await store.swap(PutOp(self.key("a"), b"2"), expected=first)
            assert second > first
            with pytest.raises(Conflict):
                await store.swap(PutOp(self.key("a"), b"3"), expected=first)
            with pytest.raises(Conflict):
                await store.swap(PutOp(self.key("b"), b"3"), expected=first)

    async def test_an_update_writes_only_what_differs(self) -> None:
        async with self.open() as store:
            lease = await store.grant(60)
            op = PutOp(self.key("a"), b"1", lease)
            assert await update_if_different(store, op)
            first = await store.get(op.key)
            assert not await update_if_different(store, op)
            assert await store.get(op.key) == first
            assert await update_if_different(store, PutOp(op.key, b"1"))
            assert await update_if_different(store, PutOp(op.key, b"2"))
            found = await store.get(op.key)
            assert found is not None
            assert (found.value, found.lease) == (b"2", 0)

    @pytest.mark.parametrize(
        "names", [[""], ["a", "b", "a"], list(range(129))], ids=["no key", "twice", "129 ops"]
    )
    async def test_an_impossible_request_is_refused(self, names: list[object]) -> None:
        async with self.open() as store:
            ops = [PutOp(self.key(name) if name != "" else "", b"v") for name in names]
            with pytest.raises(Refused):
                await store.commit(ops)

    async def test_a_value_that_is_too_large_is_refused(self) -> None:
        async with self.open() as store:
            with pytest.raises(Refused):
                await store.commit([PutOp(self.key("a"), b"x" * (2 << 20))])
            assert await store.get(self.key("a")) is None

    async def test_deleting_what_is_not_there_succeeds_without_an_event(self) -> None:
        async with self.open() as store:
            _, revision = await everything(store, self.root)
            await store.commit([DeleteOp(self.key("absent"))])
            async with ending(store.changes(self.root, after=revision)) as batches:
                last = await store.commit([DeleteOp(self.key("absent")), *self.puts(["a"])])
                assert await first_changes(batches, 1) == [Put(self.key("a"), b"v", last)]

    async def test_a_prefix_is_removed_at_once(self) -> None:
        async with self.open() as store:
            await store.commit(self.puts(["x/1", "x/2", "y"]))
            revision = await store.commit([DeletePrefixOp(self.key("x/"))])
            entries, _ = await everything(store, self.root)
            assert [entry.key for entry in entries] == [self.key("y")]
            async with ending(store.changes(self.root, after=revision - 1)) as batches:
                assert set(await first_changes(batches, 2)) == {
                    Delete(self.key("x/1"), revision),
                    Delete(self.key("x/2"), revision),
                }

    async def test_a_lease_takes_its_keys_along_in_one_revision(self) -> None:
        async with self.open() as store:
            lease = await store.grant(60)
            assert lease != 0
            put = await store.commit([PutOp(self.key(at), b"v", lease) for at in range(3)])
            found = await store.get(self.key(0))
            assert found is not None
            assert found.lease == lease
            assert 0 < await store.keep_alive(lease) <= 60
            async with ending(store.changes(self.root, after=put)) as batches:
                await store.revoke(lease)
                gone = await first_changes(batches, 3)
            assert len({event.revision for event in gone}) == 1
            assert await store.keep_alive(lease) == 0
            await store.revoke(lease)

    async def test_a_lease_that_ended_cannot_be_written_with(self) -> None:
        async with self.open() as store:
            lease = await store.grant(60)
            await store.revoke(lease)
            with pytest.raises(LeaseGone):
                await store.commit([PutOp(self.key("a"), b"v", lease)])

    async def test_who_answers_is_known(self) -> None:
        async with self.open() as store:
            await store.get(self.key("a"))
            assert store.cluster_id != 0
            assert store.connections == await store.connected(beyond=0) == 1
