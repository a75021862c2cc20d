"""Events of the data path as frozen values: the Python twins of the structs in layout.h.

Formats: contract datapath 1.14. ``decode`` takes one record of the ring, and never fails: what it
does not understand is None.
"""

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import ClassVar, Final, Self

_HEADER: Final = Struct("<BBHIIHH")
"""type, subtype, source, hash, original length, captured length, version"""
VERSION: Final = 1
PACKET: Final = 128
"""Most bytes of a packet that follow an event."""


class EventType(IntEnum):
    """Which layout follows the header."""

    DROP = 1
    TRACE = 4


class Point(IntEnum):
    """Where a packet was seen: the subtype of a trace."""

    TO_OVERLAY = 4
    FROM_OVERLAY = 9


@dataclass(frozen=True, slots=True)
class DropEvent:
    """A packet that was dropped, and why. ``line`` is the direction: bpf.counters.Direction."""

    reason: int
    hash: int
    size: int
    source_identity: int
    destination_identity: int
    line: int
    file: int
    ifindex: int
    packet: bytes

    C_NAME: ClassVar[str] = "drop_event"
    FORMAT: ClassVar[Struct] = Struct("<IIIHBbI")
    """After the header: identities, endpoint id, line, file, error, interface."""

    @classmethod
    def of(cls, header: tuple[int, ...], body: bytes) -> Self:
        source, destination, _, line, file, _, ifindex = cls.FORMAT.unpack_from(body)
        _, reason, _, number, size, captured, _ = header
        packet = body[cls.FORMAT.size : cls.FORMAT.size + captured]
        return cls(reason, number, size, source, destination, line, file, ifindex, packet)


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """A packet that passed: one for each flow, new TCP flag and some seconds."""

    point: int
    hash: int
    size: int
    source_identity: int
    destination_identity: int
    ifindex: int
    packet: bytes

    C_NAME: ClassVar[str] = "trace_event"
    FORMAT: ClassVar[Struct] = Struct("<IIHBBI16s")
    """After the header: identities, endpoint id, reason, flags, interface, original source."""

    @classmethod
    def of(cls, header: tuple[int, ...], body: bytes) -> Self:
        source, destination, _, _, _, ifindex, _ = cls.FORMAT.unpack_from(body)
        _, point, _, number, size, captured, _ = header
        packet = body[cls.FORMAT.size : cls.FORMAT.size + captured]
        return cls(point, number, size, source, destination, ifindex, packet)


Event = DropEvent | TraceEvent


def decode(record: bytes) -> Event | None:
    """One record of the ring; None when it is of another kind, version or too short."""
    if len(record) < _HEADER.size:
        return None
    header = _HEADER.unpack_from(record)
    body = record[_HEADER.size :]
    if header[-1] != VERSION:
        return None
    if header[0] == EventType.DROP and len(body) >= DropEvent.FORMAT.size:
        return DropEvent.of(header, body)
    if header[0] == EventType.TRACE and len(body) >= TraceEvent.FORMAT.size:
        return TraceEvent.of(header, body)
    return None


@dataclass(frozen=True, slots=True)
class MonitorValue:
    """What somebody listens for, and what they missed. Times: nanoseconds of CLOCK_MONOTONIC."""

    until: int = 0
    lost: int = 0
    suppressed: int = 0
    since: int = 0
    sent: int = 0
    level: int = 0

    C_NAME: ClassVar[str] = "cm_monitor"
    FORMAT: ClassVar[Struct] = Struct("<QQQQQI4x")

    def pack(self) -> bytes:
        return self.FORMAT.pack(
            self.until, self.lost, self.suppressed, self.since, self.sent, self.level
        )

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        return cls(*cls.FORMAT.unpack(raw))
