"""Is the other side's control plane alive? Its heartbeat says so by arriving (contract kvstore
5.2).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import datetime

import msgspec

from kvstore.backoff import Backoff
from kvstore.client import Denied, Point, Reader, StoreError
from kvstore.events import Put
from kvstore.watch import FollowSettings, Report, connection_of, ending, pause

KEY = "cilium/.heartbeat"


class HeartbeatSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of the heartbeat rule."""

    limit: float = 120.0
    """Without a heartbeat for longer than this, deletions are not believed."""
    key: str = KEY
    follow: FollowSettings = FollowSettings()


class Pulse(msgspec.Struct):
    """What is known of one peer's beats (loop time, seconds). It outlives connections: of a peer
    that is silent already nobody begins to expect a first beat anew.
    """

    beat_at: float | None = None
    """When the last beat was, or the first question."""
    value: tuple[bytes, int] | None = None
    since: int = 0
    watched_until: float = 0.0
    shown: bool = False
    """Whether a beat has come, rather than been there from who knows when."""
    old: bool = False
    """Whether the one that was there says itself that it is older than the limit."""


class Heartbeat:
    """The gate of everything that is followed in one etcd. ``run`` is its one task.

    The time counts from the start, so that a peer has the whole limit for its first beat, and one
    that is there already counts as a beat of now. Later only a beat that arrives while we watch is
    known to be of now: one that was written while we were away may be nearly as old as our
    absence, and is taken to be.

    What lists lack is believed by some only of a peer who is ``proven`` to live: a beat has come
    since the start, or says itself that it is of now. A clock that is wrong can only make us wait
    for the next beat.
    """

    def __init__(
        self,
        store: Reader,
        settings: HeartbeatSettings = HeartbeatSettings(),  # noqa: B008 - frozen
        *,
        pulse: Pulse | None = None,
        on_stale: Callable[[str], None] = lambda _: None,
        report: Report = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._settings = settings
        self._pulse = pulse or Pulse()
        self._clock = clock
        self._on_stale = on_stale
        self._report = report
        self._watching = False
        self._beat = asyncio.Event()

    @property
    def fresh(self) -> bool:
        """A beat arrived within the limit."""
        return self.age() <= self._settings.limit

    def age(self) -> float:
        """Seconds since the last beat, or since the first question."""
        now = asyncio.get_running_loop().time()
        if self._pulse.beat_at is None:
            self._pulse.beat_at = now
        return now - self._pulse.beat_at

    def open(self) -> bool:
        """May deletions be believed?"""
        return self.fresh

    def since(self) -> int:
        """The revision of the beat that ended the last silence, 0 when there was none. Deletions
        before it may be those of leases that ran out in that silence.
        """
        return self._pulse.since

    async def wait(self) -> None:
        """Return when deletions may be believed."""
        while not self.fresh:
            await self._beat.wait()

    def proven(self) -> bool:
        """Did a beat come within the limit?"""
        return self._pulse.shown and self.fresh

    async def prove(self) -> None:
        """Return when one has."""
        while not self.proven():
            await self._beat.wait()

    def doubtful(self) -> bool:
        """Is the last beat one that was there before us, and old by its own words?"""
        return self._pulse.old and not self._pulse.shown

    async def run(self) -> None:
        """Watch the heartbeat and say when it stops; for ever."""
        self.age()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._alarm(), name="heartbeat alarm")
            try:
                await self._listen()
            finally:
                self._look_away()

    async def _listen(self) -> None:
        key, follow = self._settings.key, self._settings.follow
        waits = Backoff(first=follow.first_wait, ceiling=follow.ceiling, jitter=follow.jitter)
        while True:
            connections = connection_of(self._store)
            try:
                async with ending(self._watch()) as marks:
                    async for _ in marks:
                        waits.reset()
            except StoreError as error:
                self._look_away()
                wait = max(next(waits), follow.denied_wait if isinstance(error, Denied) else 0)
                self._report(f"{key}: {error}; trying again in {wait:.1f} s")
                await pause(self._store, connections, wait)

    def _look_away(self) -> None:
        if self._watching:
            self._pulse.watched_until = asyncio.get_running_loop().time()
        self._watching = False

    async def _watch(self) -> AsyncIterator[None]:
        """Look what is there, then watch; yields whenever etcd has said something."""
        key, point = self._settings.key, Point(0)
        async with ending(self._store.pages(key)) as pages:
            async for page in pages:
                point = page.point
                for entry in page.entries:
                    if entry.key == key:
                        self._found((entry.value, entry.revision))
        async with ending(self._store.changes(key, after=point)) as batches:
            async for batch in batches:
                if not self._watching:
                    self._watching = True
                    self._report(None)
                for event in batch.events:
                    if isinstance(event, Put) and event.key == key:
                        now = asyncio.get_running_loop().time()
                        self._pulse.shown = True
                        self._heard((event.value, event.revision), now)
                yield

    def _found(self, value: tuple[bytes, int]) -> None:
        """A beat that was there when we looked."""
        known = self._pulse.value
        if known is None:
            age = self._age_by_itself(value[0])
            self._pulse.shown = age is not None and abs(age) <= self._settings.limit
            self._pulse.old = age is not None and age > self._settings.limit
            self._heard(value, asyncio.get_running_loop().time())
        elif value != known:
            self._pulse.shown = True
            self._heard(value, self._pulse.watched_until)

    def _age_by_itself(self, value: bytes) -> float | None:
        """Seconds since the moment that a beat names, by our clock; None when it names none."""
        try:
            stamp = datetime.fromisoformat(value.decode())
        except ValueError:
            return None
        return self._clock() - stamp.timestamp() if stamp.tzinfo is not None else None

    def _heard(self, value: tuple[bytes, int], at: float) -> None:
        pulse, silent = self._pulse, not self.fresh
        set_back = pulse.value is not None and value[1] < pulse.value[1]
        pulse.value = value
        pulse.beat_at = max(at, pulse.beat_at or 0.0)
        if self.fresh:
            if silent or set_back:
                pulse.since = value[1]
            self._beat.set()
            self._beat = asyncio.Event()

    async def _alarm(self) -> None:
        """Tell each time that another limit has passed in silence."""
        limit = self._settings.limit
        while True:
            age = self.age()
            if age > limit:
                self._on_stale(
                    f"no heartbeat for {age:.0f} s, more than the limit of {limit:.0f} s"
                )
                await self._silence(limit)
            else:
                await self._silence(limit - age)

    async def _silence(self, seconds: float) -> None:
        beat = self._beat
        try:
            async with asyncio.timeout(seconds + 0.001):
                await beat.wait()
        except TimeoutError:
            return
