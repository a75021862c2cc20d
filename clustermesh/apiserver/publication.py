"""Publication: what the source says becomes what the etcd says, in the order readers rely on."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol

from clustermesh.apiserver.refusals import Refusals
from clustermesh.health import Board
from clustermesh.identities import Assignment
from clustermesh.logs import get_logger
from clustermesh.sources.objects import ObjectKind
from clustermesh.sources.port import ObjectChange
from clustermesh.status import SourceKind

log = get_logger()

Writes = Sequence[tuple[str, bytes | None]]
"""Keys and their values, None for a key that goes."""
RECORD: Final = "identity record"


class Exporter(Protocol):
    """Objects in, keys out (``export.Exporter``)."""

    def apply(self, kind: ObjectKind, changes: Sequence[ObjectChange]) -> Writes:
        """The keys that these changes change."""
        ...

    def decided(self, label_texts: Iterable[str]) -> Writes:
        """The keys that change now that these labels have numbers."""
        ...

    def refusals(self) -> Iterable[tuple[str, str]]:
        """What of which object is not published, and why."""
        ...


class Output(Protocol):
    """Where keys go (``kvstore.publish.Publisher``)."""

    def put(self, key: str, value: bytes) -> None:
        """Keep the key at this value."""
        ...

    def remove(self, key: str) -> None:
        """Let the key go."""
        ...


class Recorder(Protocol):
    """Who writes down which labels have which number, before anybody is told."""

    def fresh(self) -> Sequence[Assignment]:
        """What was given since the last time."""
        ...

    async def record(self, assignments: Sequence[Assignment]) -> None:
        """Write it down; raises ``OSError`` when that cannot be done now."""
        ...


class Publication:
    """The sink of the source (``sources.port.SourceSink``).

    ``apply`` hands on at once. Only what gives a new number to an identity waits, and all that
    comes after it, until ``run`` has had the number recorded.
    """

    def __init__(
        self,
        exporter: Exporter,
        output: Output,
        board: Board,
        *,
        kinds: Iterable[ObjectKind],
        recorder: Recorder | None = None,
        retry: float = 1.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._exporter = exporter
        self._output = output
        self._board = board
        self._recorder = recorder
        self._retry = retry
        self._now = now
        self.refusals = Refusals(now=now)
        self._unreviewed = asyncio.Event()
        self._heard = dict.fromkeys(sorted(kinds), 0.0)
        self._synced: set[ObjectKind] = set()
        self._troubled: set[ObjectKind | None] = set()
        self._alive = asyncio.Event()
        self._fresh: list[Assignment] = []
        self._held: dict[str, bytes | None] = {}
        self._wake = asyncio.Event()
        for kind in self._heard:
            board.require_once(_condition(kind))

    # --- what the source tells -----------------------------------------------------------------

    def apply(self, kind: ObjectKind, changes: Sequence[ObjectChange]) -> None:
        """New values and removals of one kind, in order."""
        self._heard[kind] = self._now()
        self._take(self._exporter.apply(kind, changes))

    def decided(self, label_texts: Iterable[str]) -> None:
        """These labels have numbers now."""
        self._take(self._exporter.decided(label_texts))

    def synced(self, kind: ObjectKind) -> None:
        """Everything of the kind that existed has been applied."""
        if kind not in self._synced:
            log.info("source read", kind=kind)
        self._synced.add(kind)
        self._heard[kind] = self._heard.get(kind) or self._now()
        self._settle()

    def refused(self, what: str, reason: str | None) -> None:
        """An object cannot be read; what was known of it stays."""
        self.refusals.tell(what, reason)

    def trouble(self, kind: ObjectKind | None, reason: str | None) -> None:
        """The kind cannot be followed at present, or can again."""
        if reason is None:
            self._troubled.discard(kind)
            if kind is None:
                self._board.drop(_condition(None))
        else:
            self._troubled.add(kind)
            self._board.degraded(_condition(kind), reason)
        self._settle()

    # --- what goes out -------------------------------------------------------------------------

    async def run(self) -> None:
        """Record numbers, then hand on what waited for them; for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._recorder is None or not (self._held or self._fresh):
                continue
            fresh = list(self._fresh)
            try:
                await self._recorder.record(fresh)
            except OSError as error:
                self._board.degraded(RECORD, f"new identities wait: {error}")
                await asyncio.sleep(self._retry)
                self._wake.set()
                continue
            self._board.drop(RECORD)
            del self._fresh[: len(fresh)]
            if self._fresh:
                self._wake.set()  # more were given meanwhile: what is held may tell of them
                continue
            held, self._held = self._held, {}
            self._hand_on(tuple(held.items()))
            self._settle()

    async def review(self, *, every: float = 1.0) -> None:
        """Tell of what the exporter refuses, soon after it changed; for ever."""
        told: set[str] = set()
        while True:
            await self._unreviewed.wait()
            self._unreviewed.clear()
            reasons: dict[str, str] = {}
            for what, why in self._exporter.refusals():
                reasons[what] = f"{reasons[what]}; {why}" if what in reasons else why
            for what in told - reasons.keys():
                self.refusals.tell(what, None)
            for what, why in reasons.items():
                self.refusals.tell(what, why)
            told = set(reasons)
            await asyncio.sleep(every)

    def _take(self, writes: Writes) -> None:
        self._unreviewed.set()
        if self._recorder is not None:
            self._fresh += self._recorder.fresh()
        if not self._fresh and not self._held:
            self._hand_on(writes)
            return
        for key, value in writes:
            self._held.pop(key, None)
            self._held[key] = value
        self._settle()
        self._wake.set()

    def _hand_on(self, writes: Writes) -> None:
        put, remove = self._output.put, self._output.remove
        for key, value in writes:
            if value is None:
                remove(key)
            else:
                put(key, value)

    def _settle(self) -> None:
        for kind in self._synced - self._troubled:
            self._board.ok(_condition(kind))
        whole = self._synced >= self._heard.keys() and not self._held and not self._fresh
        if whole and not self._troubled:
            self._alive.set()
        else:
            self._alive.clear()

    # --- what others ask -----------------------------------------------------------------------

    async def alive(self) -> None:
        """Wait until every kind has been read in full, is followed, and all of it was handed on."""
        while not self._alive.is_set():
            await self._alive.wait()

    def kinds(self, objects: Mapping[ObjectKind, int]) -> dict[str, SourceKind]:
        """How each kind of object stands, by its name."""
        return {
            str(kind): SourceKind(
                synced=kind in self._synced, objects=objects.get(kind, 0), last_event=heard
            )
            for kind, heard in self._heard.items()
        }


def _condition(kind: ObjectKind | None) -> str:
    return "source" if kind is None else f"source/{kind}"
