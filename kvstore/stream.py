"""All watches of one connection on one stream; a reader that is slow delays no other."""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence

from kvstore import failure
from kvstore._proto import etcd_pb2 as rpc
from kvstore.client import Batch, HistoryLost, Point, StoreError, Unavailable
from kvstore.config import EtcdConfig
from kvstore.events import Change, Delete, Put
from kvstore.lists import after_prefix, to_bytes
from kvstore.wire import WATCH, Link, Stream
from kvstore.witness import Witness

_EVERYONE = -1
"""The watch id under which etcd answers a progress request."""


class Lagging(Unavailable):
    """A consumer left too much unread; its watch was ended and can be resumed where it stopped."""


class Watch:
    """What the stream brought for one watch and nobody took yet."""

    def __init__(self, number: int, after: Point, link: Link, backlog: int) -> None:
        self.number = number
        self.after = after
        self._link = link
        self._reached: Batch | Point = after
        self._backlog = backlog
        self._ready: deque[Batch] = deque()
        self._waiting = 0
        self._parts: list[Change] = []
        self._failure: StoreError | None = None
        self._wake = asyncio.Event()

    @property
    def failed(self) -> bool:
        return self._failure is not None

    def deliver(self, changes: Sequence[Change], *, whole: bool) -> None:
        """Events of one response; with ``whole`` false more of the same response follow."""
        if not whole or self._parts:
            self._parts += changes
            changes = self._parts
        if whole:
            self._parts = []
            last = changes[-1]
            self._add(Batch(changes, last.revision, Witness.event(self._link, last)))

    def stands(self) -> None:
        """etcd has made the watch."""
        self._add(Batch((), self.after.revision, self.after.past))

    def progress(self, revision: int) -> None:
        """Everything up to this revision has been delivered. A member that lags behind the one we
        read before may name one that is long past.
        """
        if not self._parts and revision > self._reached.revision:
            self._add(Batch((), revision, self._reached.past))

    def fail(self, error: StoreError) -> None:
        """No more will come; what came is still handed out first."""
        if self._failure is None:
            self._failure = error
            self._wake.set()

    async def next(self) -> Batch:
        """The oldest batch, or the reason why there will be none."""
        while not self._ready:
            if self._failure is not None:
                raise self._failure
            self._wake.clear()
            await self._wake.wait()
        batch = self._ready.popleft()
        self._waiting -= len(batch.events)
        return batch

    def _add(self, batch: Batch) -> None:
        if self._failure is not None:
            return
        self._reached = batch
        self._ready.append(batch)
        self._waiting += len(batch.events)
        self._wake.set()
        if self._waiting > self._backlog and len(self._ready) > 1:
            self.fail(Lagging(f"{self._waiting} events were left unread"))


class Watches:
    """The stream and who listens to it."""

    def __init__(self, link: Link, config: EtcdConfig) -> None:
        self._link = link
        self._config = config
        self._outbox: asyncio.Queue[rpc.WatchRequest] = (
            asyncio.Queue()
        )  # bounded by the number of watches
        self._open: dict[int, Watch] = {}
        self._unborn: deque[int] = deque()
        self._numbers = iter(range(1, 1 << 62))
        self._over: StoreError | None = None

    def open(self, prefix: str, *, after: int | Point) -> Watch:
        """Start watching; the first batch holds a revision beyond ``after``."""
        after = after if isinstance(after, Point) else Point(after)
        watch = Watch(next(self._numbers), after, self._link, self._config.watch_backlog)
        if self._over is not None:
            watch.fail(self._over)
            return watch
        key = to_bytes(prefix)
        create = rpc.WatchCreateRequest(
            key=key or b"\0",
            range_end=after_prefix(key),
            start_revision=after.revision + 1,
            progress_notify=True,
            watch_id=watch.number,
            fragment=True,
        )
        self._open[watch.number] = watch
        self._unborn.append(watch.number)
        self._outbox.put_nowait(rpc.WatchRequest(create_request=create))
        return watch

    def close(self, watch: Watch) -> None:
        """Nobody listens any more."""
        if self._open.pop(watch.number, None) is not None and self._over is None:
            self._outbox.put_nowait(
                rpc.WatchRequest(cancel_request=rpc.WatchCancelRequest(watch_id=watch.number))
            )

    async def run(self) -> None:
        """Carry requests out and events in until the stream ends; then every watch fails with the
        reason.
        """
        try:
            stream = self._link.stream(WATCH, need_leader=True)
            try:
                async with asyncio.TaskGroup() as tasks:
                    sender = tasks.create_task(self._send(stream), name="watch requests")
                    asker = tasks.create_task(self._ask_progress(), name="watch progress")
                    try:
                        while True:
                            self._take(await stream.receive())
                    except StoreError as error:
                        self._end(error)
                    sender.cancel()
                    asker.cancel()
            finally:
                stream.cancel()
        except StoreError as error:
            self._end(error)
        finally:
            self._end(Unavailable(self._link.end_reason or "the connection was closed"))

    async def _send(self, stream: Stream[rpc.WatchRequest, rpc.WatchResponse]) -> None:
        try:
            while True:
                await stream.send(await self._outbox.get())
        except StoreError as error:
            self._end(error)

    async def _ask_progress(self) -> None:
        while progress_is_safe(self._link.version):
            await asyncio.sleep(self._config.progress_interval)
            self._outbox.put_nowait(rpc.WatchRequest(progress_request=rpc.WatchProgressRequest()))

    def _take(self, reply: rpc.WatchResponse) -> None:
        number = reply.watch_id
        if reply.created and self._unborn:
            number = self._unborn.popleft()  # in order; a refused one may carry the id -1
        if reply.canceled:
            self._canceled(number, reply)
        elif number == _EVERYONE:
            for watch in list(self._open.values()):
                if watch.number not in self._unborn:
                    watch.progress(reply.header.revision)
        elif listener := self._open.get(number):
            self._deliver(listener, reply)

    def _deliver(self, watch: Watch, reply: rpc.WatchResponse) -> None:
        if reply.created:
            watch.stands()
        elif reply.events:
            watch.deliver(list(changes(reply)), whole=not reply.fragment)
        else:
            watch.progress(reply.header.revision)
        if watch.failed:
            self.close(watch)

    def _canceled(self, number: int, reply: rpc.WatchResponse) -> None:
        watch = self._open.pop(number, None)
        if watch is None:
            return
        if reply.compact_revision:
            watch.fail(
                HistoryLost(f"the history before revision {reply.compact_revision} was compacted")
            )
        else:
            reason = reply.cancel_reason or "etcd ended the watch"
            watch.fail(failure.word(reason)(reason))

    def _end(self, error: StoreError) -> None:
        self._over = self._over or error
        self._link.end(str(self._over))  # a connection without its stream is of no use
        for watch in self._open.values():
            watch.fail(error)
        self._open.clear()


def changes(reply: rpc.WatchResponse) -> Iterator[Change]:
    """The events of a response as our values."""
    for event in reply.events:
        kv = event.kv
        if event.type:
            yield Delete(kv.key.decode("utf-8", "surrogateescape"), kv.mod_revision)
        else:
            key = kv.key.decode("utf-8", "surrogateescape")
            yield Put(key, kv.value, kv.mod_revision, kv.lease)


def progress_is_safe(version: str) -> bool:
    """May the answer to a progress request be believed?

    Before 3.4.25 and 3.5.8 it could overtake events that were still on their way (etcd's
    changelog).
    """
    try:
        major, minor, patch = (int(part) for part in version.partition("-")[0].split("."))
    except ValueError:
        return False
    fixed = {(3, 4): 25, (3, 5): 8}
    return (major, minor) > (3, 5) or patch >= fixed.get((major, minor), 1 << 30)
