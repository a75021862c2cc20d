"""Puts planned steps into the maps: at once where that is quick, in a thread where it is not.

Replacing a selection table waits some milliseconds for the kernel's readers. Those steps, and what
must come after them, queue up and are done together; everything before them is done immediately.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple, Protocol

from agent.services.plan import BackendEntry, Drop, Step, Swap, Write
from agent.services.plan import Change as Turn
from bpf.datapath import Maps
from bpf.errors import BpfError
from bpf.maps import BpfMap, Tables


class Round(NamedTuple):
    """Frontends of some services that change together, and the steps for that."""

    names: tuple[str, ...]
    turns: Sequence[Turn]
    fresh: Sequence[BackendEntry]
    steps: Sequence[Step]


class Outcome(Protocol):
    """Who wants to know how a round ended."""

    def done(self, round_: Round) -> None:
        """The maps are as planned."""
        ...

    def failed(self, round_: Round, error: BpfError) -> None:
        """They are somewhere between before and after."""
        ...


class Writer:
    """The one hand that writes service maps."""

    def __init__(self, maps: Maps, outcome: Outcome) -> None:
        self._maps = maps
        self._outcome = outcome
        self._queue: deque[Round] = deque()
        self._queued = asyncio.Event()
        self.writes = 0
        """Entries written, dropped and replaced."""

    @property
    def busy(self) -> bool:
        """Whether rounds wait for tables."""
        return bool(self._queue)

    def begin(self, round_: Round) -> None:
        """Do what is quick; queue the rest when it is not, or when others are queued before."""
        try:
            quick = list(takewhile(_gives, round_.steps))
            self._apply(quick)
            rest = round_._replace(steps=round_.steps[len(quick) :])
            if not self._queue and not any(map(_is_slow, rest.steps)):
                self._apply(rest.steps)
                self._outcome.done(rest)
                return
        except BpfError as error:
            self._outcome.failed(round_, error)
            return
        self._queue.append(rest)
        self._queued.set()

    async def run(self) -> None:
        """Finish queued rounds until cancelled."""
        while True:
            await self._queued.wait()
            self._queued.clear()
            await self._finish_all(tuple(self._queue))

    async def _finish_all(self, rounds: Sequence[Round]) -> None:
        try:
            await asyncio.to_thread(self._tables, rounds)
        except BpfError:
            for round_ in rounds:  # one by one, to find the one that fails
                await self._finish_alone(round_)
        else:
            for round_ in rounds:
                self._finish(round_)

    async def _finish_alone(self, round_: Round) -> None:
        try:
            await asyncio.to_thread(self._tables, [round_])
        except BpfError as error:
            self._end(round_, error)
        else:
            self._finish(round_)

    def settle(self) -> None:
        """Finish queued rounds now, waiting for the kernel."""
        for round_ in tuple(self._queue):
            try:
                self._tables([round_])
            except BpfError as error:
                self._end(round_, error)
            else:
                self._finish(round_)

    def _finish(self, round_: Round) -> None:
        """What comes after the slow steps."""
        try:
            self._apply([step for step in round_.steps if not _is_slow(step)])
        except BpfError as error:
            self._end(round_, error)
        else:
            self._end(round_, None)

    def _end(self, round_: Round, error: BpfError | None) -> None:
        self._queue.popleft()
        if error is None:
            self._outcome.done(round_)
        else:
            self._outcome.failed(round_, error)

    def _tables(self, rounds: Sequence[Round]) -> None:
        """The slow steps, all at once. Runs in a thread: touches nothing but the tables."""
        wanted: dict[str, dict[bytes, bytes]] = {}
        for step in (step for round_ in rounds for step in round_.steps):
            if isinstance(step, Swap):
                wanted.setdefault(step.map, {}).update(step.entries)
            elif isinstance(step, Drop) and _is_slow(step):
                wanted.setdefault(step.map, {}).update(dict.fromkeys(step.entries, b""))
        for name, entries in wanted.items():
            shared: dict[bytes, list[bytes]] = {}
            for key, table in entries.items():
                shared.setdefault(table, []).append(key)
            self._write_tables(getattr(self._maps, name), shared)

    def _write_tables(self, tables: Tables, shared: dict[bytes, list[bytes]]) -> None:
        gone = shared.pop(b"", [])
        if shared:
            tables.swap_many([(keys, table) for table, keys in shared.items()])
        if gone:
            tables.drop(gone)
        self.writes += len(gone) + sum(map(len, shared.values()))

    def _apply(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if isinstance(step, Write):
                self._map(step.map).put_many(step.entries)
            elif isinstance(step, Drop):
                self._map(step.map).drop_many(step.entries)
            self.writes += len(step.entries)

    def bury(self, steps: Sequence[Step]) -> None:
        """Steps that take nothing away from anybody: see ``plan.bury``."""
        self._apply(steps)

    def _map(self, name: str) -> BpfMap:
        found: BpfMap = getattr(self._maps, name)
        return found


def _is_slow(step: Step) -> bool:
    return step.map.startswith("tables")


def _gives(step: Step) -> bool:
    """Whether a step belongs to the first part, which ends where something is taken away."""
    return isinstance(step, Write) or step.map in ("affinity_match", "services4", "services6")
