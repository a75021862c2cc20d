"""Publication: what the source says becomes what the etcd says, in the order readers rely on."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from clustermesh.apiserver.refusals import Refusals
from clustermesh.health import Board
from clustermesh.logs import get_logger
from clustermesh.sources.objects import ObjectKind
from clustermesh.sources.port import ObjectChange
from clustermesh.status import SourceKind

log = get_logger()

Write = tuple[str, bytes | None]
"""A key and its value, None when it goes."""


class Exporter(Protocol):
    """Objects in, keys out. Pure."""

    def apply(self, kind: ObjectKind, changes: Sequence[ObjectChange]) -> Iterable[Write]:
        """The keys that these changes change."""
        ...


class Output(Protocol):
    """Where keys go."""

    def put(self, key: str, value: bytes) -> None:
        """Keep the key at this value."""
        ...

    def remove(self, key: str) -> None:
        """Let the key go."""
        ...


class Publication:
    """The sink of the source (``sources.port.SourceSink``): one owner, no waiting."""

    def __init__(
        self,
        exporter: Exporter,
        output: Output,
        board: Board,
        *,
        kinds: Iterable[ObjectKind],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._exporter = exporter
        self._output = output
        self._board = board
        self._now = now
        self.refusals = Refusals(now=now)
        self._heard = dict.fromkeys(sorted(kinds), 0.0)
        self._synced: set[ObjectKind] = set()
        self._troubled: set[ObjectKind | None] = set()
        self._alive = asyncio.Event()
        for kind in self._heard:
            board.require_once(_condition(kind))

    # --- what the source tells -----------------------------------------------------------------

    def apply(self, kind: ObjectKind, changes: Sequence[ObjectChange]) -> None:
        """New values and removals of one kind, in order."""
        self._heard[kind] = self._now()
        put, remove = self._output.put, self._output.remove
        for key, value in self._exporter.apply(kind, changes):
            if value is None:
                remove(key)
            else:
                put(key, value)

    def synced(self, kind: ObjectKind) -> None:
        """Everything of the kind that existed has been applied."""
        if kind not in self._synced:
            log.info("source read", kind=kind)
        self._synced.add(kind)
        self._heard[kind] = self._heard[kind] or self._now()
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

    def _settle(self) -> None:
        for kind in self._synced - self._troubled:
            if kind is not None:
                self._board.ok(_condition(kind))
        if self._troubled or not self._synced >= self._heard.keys():
            self._alive.clear()
        else:
            self._alive.set()

    # --- what others ask -----------------------------------------------------------------------

    async def alive(self) -> None:
        """Wait until every kind has been read in full and can be followed."""
        while not self._alive.is_set():
            await self._alive.wait()

    def kinds(self, objects: Callable[[ObjectKind], int]) -> dict[str, SourceKind]:
        """How each kind of object stands, by its name."""
        return {
            str(kind): SourceKind(
                synced=kind in self._synced, objects=objects(kind), last_event=heard
            )
            for kind, heard in self._heard.items()
        }


def _condition(kind: ObjectKind | None) -> str:
    return "source" if kind is None else f"source/{kind}"
