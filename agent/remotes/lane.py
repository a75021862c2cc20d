"""Bulk work takes turns: all clusters' long lists share one lane, and leave room for others.

An event takes several turns of the loop from its socket to the maps. Where each turn had a slice of
every list that is being read, and a cluster's four lists are read at once, it waited for dozens.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

WORK: Final = 0.004
"""Seconds of work after which the lane rests."""
REST: Final = 0.001
FEW: Final = 16
"""So many events are no bulk: they pass by."""
CHUNK: Final = 64
"""Events between two looks at the clock: some 4 ms where they are nodes."""


class Lane:
    """One piece of bulk work at a time, first come, first served."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._turn = asyncio.Lock()
        self._worked = 0.0

    async def take(self, work: Callable[[], None]) -> None:
        """Do a piece of work when it is its turn; it must be short."""
        async with self._turn:
            began = self._clock()
            work()
            self._worked += self._clock() - began
            if self._worked >= WORK:
                self._worked = 0.0
                await asyncio.sleep(REST)
