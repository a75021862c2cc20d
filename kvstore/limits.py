"""How many operations may start in a second, how many may be under way (contract kvstore 5.2)."""

import asyncio


class Waited:
    """What operations waited for their turn, in seconds, since the start."""

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.least = 0.0
        self.most = 0.0

    def add(self, seconds: float) -> None:
        """One more has waited."""
        self.least = min(self.least, seconds) if self.count else seconds
        self.most = max(self.most, seconds)
        self.count += 1
        self.total += seconds

    @property
    def mean(self) -> float:
        """Of all; 0 without any."""
        return self.total / self.count if self.count else 0.0


class Limiter:
    """A token bucket with a limit of concurrency; ``async with limiter.turn()`` around one
    operation. First come, first served.

    Until ``bootstrapped`` is called the bucket fills at the bootstrap rate: a first synchronisation
    should not crawl.
    """

    def __init__(self, *, rate: float, bootstrap_rate: float, inflight: int | None = None) -> None:
        self._rate = max(rate, bootstrap_rate)
        self._later_rate = rate
        self._tokens = self._rate
        self._filled_at: float | None = None
        self._room = asyncio.Semaphore(inflight or max(1, int(self._rate)))
        self._later_room = asyncio.Semaphore(inflight or max(1, int(rate)))
        self.waited = Waited()

    def bootstrapped(self) -> None:
        """The first synchronisation is over: from now on the ordinary rate holds."""
        self._rate = self._later_rate
        self._tokens = min(self._tokens, self._rate)
        self._room = self._later_room

    def _reserve(self, now: float) -> float:
        """Take a token, maybe one of the future; the seconds until it is ours."""
        since = 0.0 if self._filled_at is None else now - self._filled_at
        self._filled_at = now
        self._tokens = min(self._tokens + since * self._rate, max(1.0, self._rate)) - 1
        return max(0.0, -self._tokens / self._rate)

    def turn(self) -> "Turn":
        """Hold this around one operation."""
        return Turn(self)

    async def begin(self) -> asyncio.Semaphore:
        """Wait for a turn; what to release at its end."""
        clock, room = asyncio.get_running_loop().time, self._room
        began = now = clock()
        if room.locked():
            await room.acquire()
            now = clock()
        else:
            await room.acquire()  # at once
        try:
            if (wait := self._reserve(now)) > 0:
                await asyncio.sleep(wait)
                now = clock()
        except asyncio.CancelledError:
            room.release()
            raise
        self.waited.add(now - began)
        return room


class Turn:
    """One operation's place. A generator made into a context manager would cost more than it."""

    __slots__ = ("_limiter", "_room")

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    async def __aenter__(self) -> None:
        self._room = await self._limiter.begin()

    async def __aexit__(self, *_: object) -> None:
        self._room.release()
