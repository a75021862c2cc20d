"""Many watches on one stream, as etcd speaks it: a stream by hand instead of a server."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from kvstore._proto import etcd_pb2 as rpc
from kvstore.client import Batch, Denied, HistoryLost, Unavailable
from kvstore.config import EtcdConfig
from kvstore.events import Change, Delete, Put
from kvstore.stream import Lagging, Watch, Watches, progress_is_safe
from tests.support.clock import settle, virtual


class Wire:
    """Link and stream in one: what was sent, and what is to be received."""

    def __init__(self, version: str = "3.5.8") -> None:
        self.version = version
        self.cluster_id = 1
        self.number = 1
        self.end_reason = ""
        self.sent: list[rpc.WatchRequest] = []
        self.replies: asyncio.Queue[rpc.WatchResponse | Exception] = asyncio.Queue()

    def stream(self, *_: object, **__: object) -> "Wire":
        return self

    def end(self, reason: str) -> None:
        self.end_reason = self.end_reason or reason

    async def send(self, request: rpc.WatchRequest) -> None:
        self.sent.append(request)

    async def receive(self) -> rpc.WatchResponse:
        reply = await self.replies.get()
        if isinstance(reply, Exception):
            raise reply
        return reply

    def cancel(self) -> None:
        return

    def tell(self, number: int, revision: int = 0, **fields: object) -> None:
        header = rpc.ResponseHeader(cluster_id=1, revision=revision)
        self.replies.put_nowait(rpc.WatchResponse(header=header, watch_id=number, **fields))

    def asked(self) -> list[str]:
        return [request.WhichOneof("request_union") for request in self.sent]


@asynccontextmanager
async def streaming(wire: Wire, **settings: float):
    watches = Watches(wire, EtcdConfig.of("http://127.0.0.1:1", **settings))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(watches.run())
        try:
            yield watches
        finally:
            running.cancel()


def put(key: bytes, revision: int, value: bytes = b"") -> rpc.Event:
    return rpc.Event(kv=rpc.KeyValue(key=key, value=value, mod_revision=revision))


def delete(key: bytes, revision: int) -> rpc.Event:
    return rpc.Event(type=rpc.Event.DELETE, kv=rpc.KeyValue(key=key, mod_revision=revision))


def told(batch: Batch) -> tuple[list[Change], int]:
    return list(batch.events), batch.revision


async def born(wire: Wire, *watches: Watch) -> None:
    for watch in watches:
        wire.tell(watch.number, created=True)
        assert told(await watch.next()) == ([], watch.after.revision)


@virtual
async def test_a_watch_begins_one_beyond_and_wants_no_previous_values() -> None:
    wire = Wire()
    async with streaming(wire) as watches:
        watches.open("a/", after=41)
        await settle()
        create = wire.sent[0].create_request
        assert (create.key, create.range_end, create.start_revision) == (b"a/", b"a0", 42)
        assert create.fragment
        assert create.progress_notify


@virtual
async def test_events_go_to_the_watch_they_are_for() -> None:
    wire = Wire()
    async with streaming(wire) as watches:
        one, two = watches.open("a/", after=0), watches.open("b/", after=0)
        await born(wire, one, two)
        wire.tell(two.number, events=[put(b"b/x", 5, b"v")])
        wire.tell(one.number, events=[delete(b"a/x", 6)])
        assert told(await one.next()) == ([Delete("a/x", 6)], 6)
        assert told(await two.next()) == ([Put("b/x", b"v", 5)], 5)


@virtual
async def test_fragments_are_one_batch() -> None:
    wire = Wire()
    async with streaming(wire) as watches:
        watch = watches.open("a/", after=0)
        await born(wire, watch)
        wire.tell(watch.number, events=[put(b"a/x", 5)], fragment=True)
        wire.tell(watch.number, events=[put(b"a/y", 5)], fragment=True)
        wire.tell(-1, 9)
        wire.tell(watch.number, events=[put(b"a/z", 6)])
        batch = await watch.next()
        assert [event.key for event in batch.events] == ["a/x", "a/y", "a/z"]
        assert batch.revision == 6


@virtual
async def test_a_late_batch_does_not_claim_the_present() -> None:
    """The header of a watch that catches up names a revision whose events are still to come."""
    wire = Wire()
    async with streaming(wire) as watches:
        watch = watches.open("a/", after=0)
        await born(wire, watch)
        wire.tell(watch.number, 1000, events=[put(b"a/x", 5)])
        assert (await watch.next()).revision == 5


@virtual
async def test_a_mark_for_one_watch_and_a_mark_for_all() -> None:
    wire = Wire()
    async with streaming(wire) as watches:
        one, two = watches.open("a/", after=0), watches.open("b/", after=0)
        unborn = watches.open("c/", after=0)
        await born(wire, one, two)
        wire.tell(one.number, 7)
        assert told(await one.next()) == ([], 7)
        wire.tell(-1, 8)
        assert told(await one.next()) == ([], 8)
        assert told(await two.next()) == ([], 8)
        await born(wire, unborn)


@virtual
async def test_a_mark_of_the_past_is_ignored() -> None:
    wire = Wire()
    async with streaming(wire) as watches:
        watch = watches.open("a/", after=100)
        await born(wire, watch)
        wire.tell(watch.number, 90)
        wire.tell(watch.number, events=[put(b"a/x", 101)])
        assert (await watch.next()).revision == 101


@virtual
async def test_marks_are_asked_for_only_where_the_answer_is_safe() -> None:
    for version, wanted in (("3.5.8", 3), ("3.5.7", 0), ("3.4.23", 0)):
        wire = Wire(version)
        async with streaming(wire, progress_interval=60):
            await asyncio.sleep(200)
            assert wire.asked().count("progress_request") == wanted


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ("3.4.24", False),
        ("3.4.25", True),
        ("3.5.1", False),
        ("3.5.8", True),
        ("3.5.16", True),
        ("3.6.0", True),
        ("3.6.0-rc.1", True),
        ("3.3.99", False),
        ("4.0.0", True),
        ("", False),
        ("unknown", False),
    ],
)
def test_which_versions_are_safe(version: str, safe: bool) -> None:
    assert progress_is_safe(version) is safe


@virtual
async def test_compaction_ends_a_watch_and_no_other() -> None:
    wire = Wire()
    async with streaming(wire) as watches:
        one, two = watches.open("a/", after=0), watches.open("b/", after=0)
        wire.tell(one.number, created=True)
        wire.tell(two.number, created=True)
        wire.tell(one.number, canceled=True, compact_revision=50)
        wire.tell(two.number, events=[put(b"b/x", 60)])
        assert told(await one.next()) == ([], 0)
        with pytest.raises(HistoryLost, match="before revision 50"):
            await one.next()
        assert told(await two.next()) == ([], 0)
        assert (await two.next()).revision == 60


@pytest.mark.parametrize("number", [1, -1])
@virtual
async def test_a_refused_watch_is_the_oldest_that_waits(number: int) -> None:
    wire = Wire()
    async with streaming(wire) as watches:
        refused, fine = watches.open("secret/", after=0), watches.open("a/", after=0)
        wire.tell(
            number,
            created=True,
            canceled=True,
            cancel_reason="rpc error: code = PermissionDenied desc = etcdserver: permission denied",
        )
        with pytest.raises(Denied):
            await refused.next()
        await born(wire, fine)


@virtual
async def test_a_stream_that_breaks_ends_every_watch_and_the_link() -> None:
    wire = Wire()
    async with streaming(wire) as watches:
        one, two = watches.open("a/", after=0), watches.open("b/", after=0)
        await born(wire, one, two)
        wire.tell(one.number, events=[put(b"a/x", 5)])
        wire.replies.put_nowait(Unavailable("no leader"))
        assert (await one.next()).revision == 5, "what came is still handed out"
        for watch in (one, two, watches.open("c/", after=0)):
            with pytest.raises(Unavailable, match="no leader"):
                await watch.next()
        assert wire.end_reason == "no leader"


@virtual
async def test_closing_a_watch_tells_etcd_and_late_events_are_ignored() -> None:
    wire = Wire()
    async with streaming(wire) as watches:
        watch = watches.open("a/", after=0)
        await born(wire, watch)
        watches.close(watch)
        watches.close(watch)
        wire.tell(watch.number, events=[put(b"a/x", 5)])
        wire.tell(watch.number, canceled=True)
        await settle()
        assert wire.asked() == ["create_request", "cancel_request"]


@virtual
async def test_who_reads_too_slowly_is_cut_off_and_nobody_else() -> None:
    wire = Wire()
    async with streaming(wire, watch_backlog=10) as watches:
        slow, quick = watches.open("a/", after=0), watches.open("b/", after=0)
        await born(wire, slow, quick)
        for revision in range(1, 30):
            wire.tell(slow.number, events=[put(b"a/x", revision)])
        wire.tell(quick.number, events=[put(b"b/x", 30)])
        assert (await quick.next()).revision == 30
        assert [(await slow.next()).revision for _ in range(11)] == list(range(1, 12))
        with pytest.raises(Lagging):
            await slow.next()
        assert "cancel_request" in wire.asked()
