"""Bulk work leaves room: nobody's events wait for somebody else's list."""

import asyncio

WORK = 0.004
REST = 0.001


class Pace:
    """Adds up how long bulk work held the event loop, and lets go of it for a fifth of the time.

    Yielding for a single turn is not enough: an event takes several turns from the socket to its
    reader, and each would wait for another slice of the work.
    """

    def __init__(self) -> None:
        self._worked = 0.0

    def begin(self) -> float:
        """When a piece of work begins."""
        return asyncio.get_running_loop().time()

    async def ended(self, began: float) -> None:
        """A piece of work is done; rest when there was enough of it."""
        self._worked += asyncio.get_running_loop().time() - began
        if self._worked >= WORK:
            self._worked = 0.0
            await asyncio.sleep(REST)
