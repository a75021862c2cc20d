"""Propagation probes: now and then a fact that says when it was written (decision 0009)."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable

from clustermesh import propagation
from clustermesh.apiserver.heartbeat import Putter
from clustermesh.keys import Layout
from clustermesh.propagation import Probe


class Beacon:
    """Puts the probe the way every fact goes: queued, rate limited, under the same lease."""

    def __init__(
        self,
        output: Putter,
        *,
        cluster: str,
        interval: float,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self._output = output
        self._key = propagation.key(Layout.STATE, cluster)
        self._interval = interval
        self._now = now
        self._run = secrets.token_hex(8)
        self.sent = 0
        """How many were put."""

    async def run(self, alive: Callable[[], Awaitable[None]]) -> None:
        """For ever, the first after one interval; not while what is published may be untrue."""
        while True:
            await asyncio.sleep(self._interval)
            await alive()
            self.sent += 1
            probe = Probe(run=self._run, seq=self.sent, sent=self._now())
            self._output.put(self._key, propagation.encode(probe))
