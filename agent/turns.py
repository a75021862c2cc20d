"""When the maps are written: at once where little has changed, else by a task, slice by slice.

One hand writes at a time. What the kernel refuses is tried again, ever less often.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

import structlog

from agent.services.retries import DOUBLINGS
from bpf.errors import BpfError

log = structlog.get_logger()

HEAVY: Final = 0.002
REST: Final = 0.001
"""Seconds: after a heavy slice others get more than one turn of the loop."""
BUDGET: Final = 0.004
"""Seconds of merging between two yields to the loop."""
LITTLE: Final = 16
"""Changes that are written in the turn that tells them: to wake the task would cost more."""


class Work(Protocol):
    """What is to be done."""

    def work(self, clock: Callable[[], float], budget: float) -> bool:
        """One slice, for about ``budget`` seconds; whether there was anything to do."""
        ...

    def retry(self, now: float) -> float | None:
        """What failed and is due is to be done again; when to ask the next time."""
        ...

    def rested(self) -> None:
        """Nothing is left to do now."""
        ...


class Turns:
    """Owner of the task that writes. ``trouble`` says what keeps it from that."""

    def __init__(self, work: Work, *, retry_after: float) -> None:
        self.trouble = ""
        self._work = work
        self._retry_after = retry_after
        self._wake = asyncio.Event()
        self._resting = False
        """Whether the task waits for news."""

    def wake(self) -> None:
        """There is news."""
        self._wake.set()

    def told(self, changes: int) -> None:
        """There is news, of so many changes. A few are written before this returns."""
        if changes > LITTLE or not self._resting or not self._write_now():
            self._wake.set()

    def _write_now(self) -> bool:
        """In place of the task; whether nothing is left for it."""
        clock = asyncio.get_running_loop().time
        self._resting = False
        try:
            done = any(not self._work.work(clock, 0) for _ in range(3))
        except BpfError:
            return False  # the task meets it again, and says so
        self._resting = True
        if done:
            self._work.rested()
        return done and self._work.retry(clock()) is None

    async def run(self) -> None:
        """Write until cancelled. What is in the maps stays there."""
        clock = asyncio.get_running_loop().time
        delay = self._retry_after
        while True:
            self._wake.clear()
            again = self._work.retry(clock())
            try:
                await self._write(clock)
                delay, self.trouble = self._retry_after, ""
            except BpfError as error:
                self._say(str(error), delay)
                again = clock() + delay
                delay = min(delay * 2, self._retry_after * 2**DOUBLINGS)
            await self._woken(again)

    async def _write(self, clock: Callable[[], float]) -> None:
        """Until nothing is left to do; everybody else has a turn after each slice."""
        began = clock()
        while self._work.work(clock, BUDGET):
            await asyncio.sleep(REST if clock() - began > HEAVY else 0)
            began = clock()
        self._work.rested()

    async def _woken(self, at: float | None) -> None:
        """Until there is news, or until a moment of the loop's clock."""
        self._resting = not self.trouble
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(at):
                    await self._wake.wait()
        finally:
            self._resting = False

    def _say(self, reason: str, delay: float) -> None:
        self.trouble = f"{reason}; trying again in {delay:.1f} s"
        log.warning("maps not writable", reason=reason, retry_in=delay)
