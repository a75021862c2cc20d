"""How many operations may start in a second, how many may be under way (contract kvstore 5.2)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


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

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold this around one operation."""
        async with self._room:
            wait = self._reserve(asyncio.get_running_loop().time())
            if wait > 0:
                await asyncio.sleep(wait)
            yield
