"""A follower tells one endless story, whatever happens to the store."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

from kvstore.client import DeleteOp, DeletePrefixOp, Denied, PutOp, Unavailable
from kvstore.events import Delete, Event, Put, Synced
from kvstore.memory import MemoryStore
from kvstore.watch import FollowSettings, Gate, follow, whole_revisions
from tests.support.clock import settle, virtual


class Door:
    """A gate that is opened and closed by hand."""

    def __init__(self, *, ajar: bool = True) -> None:
        self._open = asyncio.Event()
        self.turn(ajar=ajar)

    def turn(self, *, ajar: bool) -> None:
        (self._open.set if ajar else self._open.clear)()

    def open(self) -> bool:
        return self._open.is_set()

    async def wait(self) -> None:
        await self._open.wait()


class Listener:
    """Somebody who follows: what was told, and the picture that results."""

    def __init__(self, store: MemoryStore, **options: object) -> None:
        self.store = store
        self.options = options
        self.slices: list[Sequence[Event]] = []
        self.picture: dict[str, bytes] = {}
        self.deleted: list[str] = []
        self.synced: list[int] = []
        self.reports: list[str | None] = []

    async def run(self) -> None:
        story = follow(self.store, "a/", report=self.reports.append, **self.options)
        async with aclosing(story):
            async for told in story:
                self.slices.append(told)
                for event in told:
                    self._learn(event)

    def _learn(self, event: Event) -> None:
        match event:
            case Put(key, value):
                self.picture[key] = value
            case Delete(key):
                del self.picture[key]
                self.deleted.append(key)
            case Synced(revision):
                self.synced.append(revision)


class Listening:
    """A listener at work for the length of a block."""

    def __init__(self, store: MemoryStore, **options: object) -> None:
        self.listener = Listener(store, **options)

    async def __aenter__(self) -> Listener:
        self.tasks = asyncio.TaskGroup()
        await self.tasks.__aenter__()
        self.task = self.tasks.create_task(self.listener.run())
        await settle()
        return self.listener

    async def __aexit__(self, *failure: object) -> None:
        self.task.cancel()
        await self.tasks.__aexit__(*failure)


def puts(*names: str, value: bytes = b"1") -> list[PutOp]:
    return [PutOp(f"a/{name}", value) for name in names]


@virtual
async def test_a_story_begins_with_everything_and_then_synced() -> None:
    store = MemoryStore()
    revision = await store.commit([*puts("x", "y"), PutOp("b/z", b"")])
    async with Listening(store) as told:
        assert told.slices == [
            [Put("a/x", b"1", revision), Put("a/y", b"1", revision)],
            (Synced(revision),),
        ]
        assert told.reports == [None]


@virtual
async def test_an_empty_prefix_is_synced_too() -> None:
    async with Listening(MemoryStore()) as told:
        assert told.slices == [(Synced(1),)]


@virtual
async def test_changes_follow_as_they_happen() -> None:
    store = MemoryStore()
    async with Listening(store) as told:
        await store.commit(puts("x"))
        await store.commit([DeleteOp("a/x")])
        await settle()
        assert told.slices[1:] == [[Put("a/x", b"1", 2)], [Delete("a/x", 3)]]


@virtual
async def test_an_outage_costs_nothing_but_time() -> None:
    store = MemoryStore()
    async with Listening(store) as told:
        await store.commit(puts("x"))
        await settle()
        before = list(told.slices)
        store.outage()
        await asyncio.sleep(300)
        assert told.picture == {"a/x": b"1"}
        store.heal()
        await store.commit(puts("y"))
        await settle()
        assert told.slices == [*before, [Put("a/y", b"1", 3)]]
        assert told.synced == [1]


@virtual
async def test_an_outage_is_told_with_the_next_try_and_its_end() -> None:
    store = MemoryStore()
    store.outage(Unavailable("nobody is there"))
    async with Listening(store) as told:
        await asyncio.sleep(200)
        assert told.reports[0] == "a/: nobody is there; trying again in 0.0 s"
        assert all("trying again in" in (told or "") for told in told.reports)
        store.heal()
        await settle()
        assert told.reports[-1] is None


@virtual
async def test_a_denial_is_told_and_tried_again_slowly() -> None:
    store = MemoryStore()
    store.outage(Denied("the role is missing"))
    async with Listening(store) as told:
        await asyncio.sleep(100)
        assert told.reports[0] == "a/: the role is missing; trying again in 5 s"
        assert len(told.reports) < 20


@virtual
async def test_compaction_during_an_outage_is_told_as_puts_deletes_and_synced() -> None:
    store = MemoryStore()
    await store.commit(puts("kept", "gone"))
    async with Listening(store) as told:
        store.outage()
        await settle()
        store.heal()
        told.slices.clear()
        await store.commit([*puts("new"), DeleteOp("a/gone")])
        store.compact()
        await asyncio.sleep(1)
        assert told.slices == [
            [Put("a/kept", b"1", 2), Put("a/new", b"1", 3)],
            [Delete("a/gone", 3)],
            (Synced(3),),
        ]


@virtual
async def test_after_another_past_deletions_are_held_until_the_doubt_is_over() -> None:
    store = MemoryStore()
    backup = store.snapshot()
    await store.commit(puts("old", "older"))
    async with Listening(store, settings=FollowSettings(doubt=30)) as told:
        store.restore(backup)
        await asyncio.sleep(10)
        assert told.picture.keys() == {"a/old", "a/older"}
        assert len(told.synced) == 1
        await store.commit(puts("old"))
        await asyncio.sleep(10)
        assert told.deleted == []
        await asyncio.sleep(15)
        assert told.deleted == ["a/older"]
        assert told.picture.keys() == {"a/old"}
        assert len(told.synced) == 2


@virtual
async def test_another_etcd_behind_the_same_address_is_another_past() -> None:
    store = MemoryStore()
    await store.commit(puts("x"))
    async with Listening(store) as told:
        store.replace_cluster_id(99)
        await asyncio.sleep(5)
        assert told.deleted == []
        await asyncio.sleep(30)
        assert told.deleted == ["a/x"]


@virtual
async def test_a_list_is_not_believed_before_its_canary() -> None:
    store = MemoryStore()
    await store.commit(puts("x"))
    async with Listening(store, canary="synced/a") as told:
        await asyncio.sleep(1000)
        assert told.slices == []
        assert "waiting for synced/a" in str(told.reports[-1])
        await store.commit([PutOp("synced/a", b"")])
        await settle()
        assert told.picture == {"a/x": b"1"}
        assert told.reports[-1] is None


@virtual
async def test_a_wiped_store_is_not_believed_before_it_has_been_filled_again() -> None:
    store = MemoryStore()
    await store.commit([*puts("x", "y"), PutOp("synced/a", b"")])
    async with Listening(store, canary="synced/a", settings=FollowSettings(doubt=0)) as told:
        store.replace_cluster_id(1)
        await store.commit(puts("x"))
        await asyncio.sleep(100)
        await store.commit([*puts("y"), PutOp("synced/a", b"")])
        await asyncio.sleep(100)
        assert told.deleted == []
        assert len(told.synced) == 2


@virtual
async def test_that_a_canary_goes_has_no_effect() -> None:
    store = MemoryStore()
    await store.commit([*puts("x"), PutOp("synced/a", b"")])
    async with Listening(store, canary="synced/a") as told:
        await store.commit([DeleteOp("synced/a")])
        await store.commit(puts("y"))
        await settle()
        assert told.picture.keys() == {"a/x", "a/y"}


@virtual
async def test_deletions_are_held_while_the_gate_is_closed() -> None:
    store, door = MemoryStore(), Door()
    await store.commit(puts("x", "y", "z"))
    async with Listening(store, gate=_gate(door)) as told:
        door.turn(ajar=False)
        await store.commit([DeleteOp("a/x"), *puts("new")])
        await store.commit([DeleteOp("a/y")])
        await asyncio.sleep(1000)
        assert told.picture.keys() == {"a/x", "a/y", "a/z", "a/new"}
        await store.commit(puts("y"))
        door.turn(ajar=True)
        await settle()
        assert told.deleted == ["a/x"]
        assert told.picture.keys() == {"a/y", "a/z", "a/new"}
        assert len(told.synced) == 2


class Proof(Door):
    """Open; but nothing proves that the writer lives before ``turn``."""

    def __init__(self) -> None:
        super().__init__()
        self.turn(ajar=False)

    def open(self) -> bool:
        return True

    async def wait(self) -> None:
        return

    def proven(self) -> bool:
        return super().open()

    async def prove(self) -> None:
        await super().wait()


@virtual
async def test_without_proof_only_what_lists_lack_is_held() -> None:
    store, proof = MemoryStore(), Proof()
    await store.commit(puts("x", "y", "z"))
    async with Listening(store, gate=_gate(proof)) as told:
        assert told.picture.keys() == {"a/x", "a/y", "a/z"}
        assert told.synced == []
        assert told.reports == [None], "all was told, and the watch stands"
        await store.commit([DeleteOp("a/x"), *puts("new")])
        await settle()
        assert told.deleted == ["a/x"], "that was seen"
        proof.turn(ajar=True)
        await settle()
        assert told.synced == [store.revision]
        assert told.picture.keys() == {"a/y", "a/z", "a/new"}


@virtual
async def test_a_full_list_deletes_nothing_while_the_gate_is_closed() -> None:
    store, door = MemoryStore(), Door()
    await store.commit(puts("x", "y"))
    async with Listening(store, gate=_gate(door)) as told:
        door.turn(ajar=False)
        store.outage()
        await settle()
        store.heal()
        await store.commit([DeletePrefixOp("a/"), PutOp("a/new", b"")])
        store.compact()
        await asyncio.sleep(100)
        assert told.picture.keys() == {"a/x", "a/y", "a/new"}
        assert len(told.synced) == 1
        door.turn(ajar=True)
        await settle()
        assert told.picture.keys() == {"a/new"}
        assert len(told.synced) == 2


@virtual
async def test_deletions_of_a_silence_are_not_believed_after_it() -> None:
    """The lease of a writer that was cut off ran out, and it has written all of it again since."""

    class Silence(Door):
        def since(self) -> int:
            return ended_at

    store, ended_at = MemoryStore(), 0
    await store.commit(puts("x", "y"))
    async with Listening(store, gate=Silence()) as told:
        store.outage()
        await settle()
        store.heal()
        await store.commit([DeletePrefixOp("a/")])
        ended_at = await store.commit(puts("x", "new"))
        await store.commit([DeleteOp("a/new")])
        await asyncio.sleep(1)
        assert told.deleted == ["a/new", "a/y"], "told once it is certain, a/x never"
        assert told.picture == {"a/x": b"1"}


@virtual
async def test_the_watch_goes_on_when_nothing_was_held() -> None:
    store, door = MemoryStore(), Door()
    async with Listening(store, gate=_gate(door)) as told:
        door.turn(ajar=False)
        await store.commit(puts("x"))
        await settle()
        door.turn(ajar=True)
        await store.commit(puts("y"))
        await settle()
        assert told.slices[1:] == [[Put("a/x", b"1", 2)], [Put("a/y", b"1", 3)]]


@virtual
async def test_long_lists_come_in_slices() -> None:
    store = MemoryStore()
    for start in range(0, 1000, 100):
        await store.commit(puts(*(str(at) for at in range(start, start + 100))))
    async with Listening(store, settings=FollowSettings(slice_events=64)) as told:
        assert len(told.picture) == 1000
        assert max(map(len, told.slices)) == 64


def test_slices_never_part_a_revision() -> None:
    events = [Put(f"k{at}", b"", revision) for revision in (1, 2, 2, 2, 3, 4, 4) for at in (0,)]
    assert [[event.revision for event in part] for part in whole_revisions(events, 2)] == [
        [1],
        [2, 2, 2],
        [3],
        [4, 4],
    ]
    assert list(whole_revisions([], 2)) == []
    assert list(whole_revisions(events, 100)) == [events]


@virtual
async def test_a_store_that_keeps_failing_in_its_lists_is_asked_more_and_more_rarely() -> None:
    store = MemoryStore(page_keys=1)
    await store.commit(puts("x", "y"))

    class Breaking:
        """Every list breaks after its first page."""

        lists = 0
        get = store.get
        changes = store.changes

        async def pages(self, prefix: str):
            self.lists += 1
            async for page in store.pages(prefix):
                yield page
                raise Unavailable("the connection was lost")

    breaking = Breaking()
    async with Listening(breaking) as told:
        await asyncio.sleep(600)
        assert 8 < breaking.lists < 40
        assert told.synced == []


def _gate(door: Door) -> Gate:
    return door
