"""The heartbeat: a sign of life of the source, not of this process."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from clustermesh.apiserver.moment import stamp
from clustermesh.keys import HEARTBEAT


class Putter(Protocol):
    """Where the beats go."""

    def put(self, key: str, value: bytes) -> None:
        """Keep the key at this value."""
        ...


class Heart:
    """Beats while the source is alive (contract kvstore 10, steps 6 and 8)."""

    def __init__(
        self, output: Putter, *, interval: float, now: Callable[[], float] = time.time
    ) -> None:
        self._output = output
        self._interval = interval
        self._now = now
        self.last = 0.0
        """When it last beat, in Unix seconds; 0 for never."""

    async def run(self, alive: Callable[[], Awaitable[None]]) -> None:
        """Beat for ever. ``alive`` returns when what is published is known to be true.

        A source that comes back is followed by a beat at once, so that readers learn of it.
        """
        while True:
            await alive()
            self.last = self._now()
            self._output.put(HEARTBEAT, stamp(self.last))
            await asyncio.sleep(self._interval)
