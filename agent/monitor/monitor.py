"""One ring, any number of listeners: the kernel tells something only while somebody listens."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

import msgspec

from agent.monitor import packet
from agent.monitor.names import Names
from bpf.counters import REASONS, Direction, Reason
from bpf.layout_events import DropEvent, Event, MonitorValue, Point
from bpf.monitor import Level
from clustermesh.flows import DROP, TRACE, Filter, Flow, Missed, Told

BATCH: Final = 500
"""Events taken from the ring between two turns of the loop."""
QUEUE: Final = 2000
"""Events that wait for one listener; more are skipped, and counted."""
INBOUND, OUTBOUND = "ingress", "egress"
NANOSECONDS: Final = 1_000_000_000


class Ring(Protocol):
    """See ``bpf.monitor.Ring``."""

    def fileno(self) -> int:
        """Readable when an event waits."""
        ...

    def want(self, level: Level, *, until: int) -> None:
        """Tell this much until then."""
        ...

    def state(self) -> MonitorValue:
        """What is wanted, and what was missed."""
        ...

    def events(self, most: int) -> Iterator[Event]:
        """What waits."""
        ...

    def close(self) -> None:
        """Nobody listens any more."""
        ...


class _Listener:
    def __init__(self, wanted: Filter) -> None:
        self.wanted = wanted
        self.level = Level.DROPS if wanted.type == DROP else Level.ALL
        self.waiting: asyncio.Queue[tuple[float, Event]] = asyncio.Queue(QUEUE)
        self.skipped = 0

    def offer(self, event: Event) -> None:
        try:
            self.waiting.put_nowait((time.time(), event))
        except asyncio.QueueFull:
            self.skipped += 1


class Monitor:
    """Serves GET /v1/monitor. ``beat`` is how often, in seconds, listeners are told what they
    missed and the kernel that somebody still listens."""

    def __init__(self, listen: Callable[[], Ring], names: Names, *, node: str, beat: float) -> None:
        self._listen = listen
        self._names = names
        self._node = node
        self._beat = beat
        self._ring: Ring | None = None
        self._listeners: list[_Listener] = []

    async def lines(self, wanted: Filter) -> AsyncIterator[bytes]:
        """What happens from now on, a line of JSON each, until the caller stops."""
        clock = asyncio.get_running_loop().time
        with self._listening(_Listener(wanted)) as (ring, listener):
            before, beat = ring.state(), clock() + self._beat
            while True:
                if clock() >= beat:
                    self._renew()
                    before, missed = self._missed(before, ring.state(), listener)
                    yield missed  # a blank line when there is none: it finds out who has gone
                    beat = clock() + self._beat
                try:
                    async with asyncio.timeout_at(beat):
                        when, event = await listener.waiting.get()
                except TimeoutError:
                    continue
                flow = await self._named(when, event)
                if wanted.wants(flow):
                    yield _line(flow)

    @contextmanager
    def _listening(self, listener: _Listener) -> Iterator[tuple[Ring, _Listener]]:
        ring = self._ring
        if ring is None:
            ring = self._ring = self._listen()
            asyncio.get_running_loop().add_reader(ring.fileno(), self._read, ring)
        self._listeners.append(listener)
        self._renew()
        try:
            yield ring, listener
        finally:
            self._listeners.remove(listener)
            self._renew()
            if not self._listeners:
                asyncio.get_running_loop().remove_reader(ring.fileno())
                ring.close()
                self._ring = None

    def _renew(self) -> None:
        if self._ring is not None:
            level = max((it.level for it in self._listeners), default=Level.NOTHING)
            until = time.monotonic_ns() + int(3 * self._beat * NANOSECONDS)
            self._ring.want(level, until=until)

    def _read(self, ring: Ring) -> None:
        for event in ring.events(BATCH):
            for listener in self._listeners:
                listener.offer(event)

    def _missed(
        self, before: MonitorValue, now: MonitorValue, listener: _Listener
    ) -> tuple[MonitorValue, bytes]:
        suppressed, lost = now.suppressed - before.suppressed, now.lost - before.lost
        skipped, listener.skipped = listener.skipped, 0
        if not (suppressed or lost or skipped):
            return now, b"\n"
        missed = Missed(
            time=time.time(), node=self._node, suppressed=suppressed, lost=lost, skipped=skipped
        )
        return now, _line(missed)

    async def _named(self, when: float, event: Event) -> Flow:
        read = packet.read(event.packet)
        source = await self._names.end(read.source, read.source_port, event.source_identity)
        destination = await self._names.end(
            read.destination, read.destination_port, event.destination_identity
        )
        return Flow(
            time=when,
            node=self._node,
            protocol=read.protocol,
            flags=read.flags,
            size=event.size,
            source=source,
            destination=destination,
            **_verdict(event),
        )


def _verdict(event: Event) -> dict[str, Any]:
    """What became of the packet, and where."""
    if isinstance(event, DropEvent):
        return {
            "type": DROP,
            "direction": INBOUND if event.line == Direction.INGRESS else OUTBOUND,
            "reason": _reason(event.reason),
            "code": event.reason,
        }
    inbound = event.point == Point.FROM_OVERLAY
    return {
        "type": TRACE,
        "direction": INBOUND if inbound else OUTBOUND,
        "point": "from-overlay" if inbound else "to-overlay",
    }


def _reason(code: int) -> str:
    try:
        return REASONS[Reason(code)]
    except ValueError:
        return f"reason {code}"


def _line(told: Told) -> bytes:
    return msgspec.json.encode(told) + b"\n"
