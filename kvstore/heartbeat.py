"""Is the other side's control plane alive? Its heartbeat says so by arriving (contract kvstore
5.2).
"""

import asyncio
from collections.abc import Callable

import msgspec

from kvstore.client import Reader
from kvstore.events import Put
from kvstore.watch import FollowSettings, Report, ending, follow

KEY = "cilium/.heartbeat"


class HeartbeatSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of the heartbeat rule."""

    limit: float = 120.0
    """Without a heartbeat for longer than this, deletions are not believed."""
    key: str = KEY
    follow: FollowSettings = FollowSettings()


class Heartbeat:
    """The gate of everything that is followed in one etcd. ``run`` is its one task.

    The time counts from the start, so that a peer has the whole limit for its first beat. A
    heartbeat that is listed again unchanged after a reconnect is not a new one: its producer may be
    dead. Not before a beat has arrived does a gate that closed open again.
    """

    def __init__(
        self,
        store: Reader,
        settings: HeartbeatSettings = HeartbeatSettings(),  # noqa: B008 - frozen
        *,
        on_stale: Callable[[str], None] = lambda _: None,
        report: Report = lambda _: None,
    ) -> None:
        self._store = store
        self._settings = settings
        self._on_stale = on_stale
        self._report = report
        self._beat_at: float | None = None
        self._value: tuple[bytes, int] | None = None
        self._since = 0
        self._beat = asyncio.Event()

    @property
    def fresh(self) -> bool:
        """A beat arrived within the limit."""
        return self.age() <= self._settings.limit

    def age(self) -> float:
        """Seconds since the last beat arrived, or since the first question."""
        now = asyncio.get_running_loop().time()
        if self._beat_at is None:
            self._beat_at = now
        return now - self._beat_at

    def open(self) -> bool:
        """May deletions be believed?"""
        return self.fresh

    def since(self) -> int:
        """The revision of the beat that ended the last silence, 0 when there was none. Deletions
        before it may be those of leases that ran out in that silence.
        """
        return self._since

    async def wait(self) -> None:
        """Return when deletions may be believed."""
        while not self.fresh:
            await self._beat.wait()

    async def run(self) -> None:
        """Follow the heartbeat and say when it stops; for ever."""
        self.age()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._alarm(), name="heartbeat alarm")
            async with ending(
                follow(
                    self._store,
                    self._settings.key,
                    settings=self._settings.follow,
                    report=self._report,
                )
            ) as story:
                async for events in story:
                    for event in events:
                        if isinstance(event, Put) and event.key == self._settings.key:
                            self._arrived((event.value, event.revision))

    def _arrived(self, value: tuple[bytes, int]) -> None:
        if value == self._value:
            return
        set_back = self._value is not None and value[1] < self._value[1]
        if set_back or not self.fresh:
            self._since = value[1]
        self._value = value
        self._beat_at = asyncio.get_running_loop().time()
        self._beat.set()
        self._beat = asyncio.Event()

    async def _alarm(self) -> None:
        """Tell each time that another limit has passed in silence."""
        limit = self._settings.limit
        while True:
            age = self.age()
            if age > limit:
                told = f"no heartbeat for {age:.0f} s, more than the limit of {limit:.0f} s"
                self._on_stale(told)
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
