"""Closes the UDP sockets that still talk to backends which are gone, so that they select anew.

A connected UDP socket has its backend for life: nothing tells it that nobody listens any more
(contract datapath 3.7). Only sockets that the socket programs have translated are closed, by their
cookie in the reverse-socket map: who connected to the backend's own address meant it.
"""

import asyncio
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from agent.sockets.diag import Diag, Found
from agent.sockets.namespaces import inside, namespaces
from bpf.errors import BpfError
from bpf.layout_lb import BackendValue, ReverseSocketKey
from bpf.maps import BpfMap

log = structlog.get_logger()

UDP: Final = 17
PAUSE: Final = 0.2
"""Seconds that backends gather; a connect that was on its way to one of them is over by then."""
MOST_NAMESPACES: Final = 4096
"""Visited in one round: some 50 us each."""

Target = tuple[bytes, int]
"""Address and port of a backend that is gone."""


class Round(NamedTuple):
    """What one look at all namespaces came to."""

    namespaces: int
    closed: int
    trouble: str = ""


class Closer:
    """One task, with one thread of its own: it alone visits other namespaces."""

    def __init__(
        self,
        reverse4: BpfMap,
        reverse6: BpfMap,
        cgroup: Path,
        *,
        pause: float = PAUSE,
        most: int = MOST_NAMESPACES,
    ) -> None:
        self.closed = 0
        """Sockets closed since the start."""
        self.trouble = ""
        """Why sockets could not be closed the last time, a sentence."""
        self._reverse = {4: reverse4, 16: reverse6}
        self._cgroup = cgroup
        self._pause = pause
        self._most = most
        self._gone: set[Target] = set()
        self._news = asyncio.Event()

    def removed(self, backends: Iterable[BackendValue]) -> None:
        """These are in the maps no more."""
        self._gone.update((it.address, it.port) for it in backends if it.proto in (0, UDP))
        if self._gone:
            self._news.set()

    async def run(self) -> None:
        """Until cancelled. A round in progress is waited for: it takes milliseconds."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, thread_name_prefix="sockets") as thread:
            while True:
                await self._news.wait()
                await asyncio.sleep(self._pause)
                self._news.clear()
                gone, self._gone = frozenset(self._gone), set()
                if gone:
                    self._told(await loop.run_in_executor(thread, self.close, gone))

    def _told(self, round_: Round) -> None:
        self.closed += round_.closed
        if round_.closed:
            log.info("sockets closed", closed=round_.closed, namespaces=round_.namespaces)
        if round_.trouble and round_.trouble != self.trouble:
            log.warning("sockets not closed", reason=round_.trouble)
        self.trouble = round_.trouble

    def sentences(self) -> list[str]:
        """What is wrong, for the status."""
        return [self.trouble] if self.trouble else []

    def close(self, gone: frozenset[Target]) -> Round:
        """Visit every namespace once. What fails in one does not stop the others."""
        found, more = namespaces(self._cgroup, most=self._most)
        closed, trouble = 0, ""
        if more:
            trouble = f"there are more than {self._most} network namespaces; not all were visited"
        for pid in found.values():
            try:
                closed += self._close_in(pid, gone)
            except (FileNotFoundError, ProcessLookupError):
                continue  # the process has ended
            except (OSError, BpfError) as error:
                trouble = f"UDP sockets of removed backends stay open: {error}"
        return Round(len(found), closed, trouble)

    def _close_in(self, pid: int, gone: frozenset[Target]) -> int:
        with inside(pid):
            diag = Diag()  # it stays in the namespace in which it was made
        with diag:
            sockets = [it for it in diag.connected_udp() if (it.address, it.port) in gone]
            return sum(diag.close(it) for it in sockets if self._translated(it))

    def _translated(self, found: Found) -> bool:
        key = ReverseSocketKey(found.cookie, found.address, found.port)
        return self._reverse[len(found.address)].get(key.pack()) is not None
