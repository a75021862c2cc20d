"""Listening to the data path: the ring of events, and the page that says what is wanted.

    with datapath.listen() as ring:
        ring.want(Level.DROPS, until=time.monotonic_ns() + 5_000_000_000)
        loop.add_reader(ring, ...)      # readable when there are events
        for event in ring.events(500): ...

The programs tell nothing once ``until`` has passed: a listener that died costs nothing for long.
Neither reading nor saying what is wanted is a bpf(2) call.
"""

import ctypes
import mmap
import os
from collections.abc import Iterator
from enum import IntEnum
from struct import Struct
from typing import Final, Self

from bpf import syscalls
from bpf.layout_events import Event, MonitorValue, decode

_POSITION: Final = Struct("=Q")
_LENGTH: Final = Struct("=I")
_RECORD_HEADER: Final = 8
_BUSY: Final = 1 << 31
_DISCARDED: Final = 1 << 30


class Level(IntEnum):
    """How much is told."""

    NOTHING = 0
    DROPS = 1
    ALL = 2


class _Fields(ctypes.Structure):
    """struct cm_monitor; each assignment is one aligned store."""

    _fields_ = (
        ("until", ctypes.c_uint64),
        ("lost", ctypes.c_uint64),
        ("suppressed", ctypes.c_uint64),
        ("since", ctypes.c_uint64),
        ("sent", ctypes.c_uint64),
        ("level", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
    )


def monitor_state(fd: int) -> MonitorValue:
    """What ``cm_monitor`` holds."""
    with mmap.mmap(fd, mmap.PAGESIZE, prot=mmap.PROT_READ) as memory:
        return MonitorValue.unpack(memory[: MonitorValue.FORMAT.size])


class Ring:
    """The one reader of a ring buffer. Format: the kernel's documentation of BPF ring buffers.

    What was in the ring before is not shown: it is from before anybody listened.
    """

    def __init__(self, ring_fd: int, monitor_fd: int) -> None:
        size = syscalls.map_info(ring_fd).max_entries
        self._mask = size - 1
        self._fd = os.dup(ring_fd)
        page = mmap.PAGESIZE
        self._consumer = mmap.mmap(self._fd, page)
        # the producer's page, and the data twice over, so that a record never wraps
        self._data = mmap.mmap(self._fd, page + 2 * size, prot=mmap.PROT_READ, offset=page)
        self._memory = mmap.mmap(monitor_fd, page)
        self._fields: _Fields | None = _Fields.from_buffer(self._memory)
        self._at = self._produced()
        self._release()

    def fileno(self) -> int:
        """For a selector: readable when an event waits."""
        return self._fd

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nobody listens any more."""
        if self._fields is not None:
            self.want(Level.NOTHING, until=0)
        self._fields = None
        for memory in (self._consumer, self._data, self._memory):
            memory.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def want(self, level: Level, *, until: int) -> None:
        """Tell this much until then, in nanoseconds of CLOCK_MONOTONIC."""
        if self._fields is None:
            raise ValueError("the ring is closed")
        self._fields.until = until
        self._fields.level = level

    def state(self) -> MonitorValue:
        """What is wanted, and what was missed since the map was made."""
        if self._fields is None:
            raise ValueError("the ring is closed")
        return MonitorValue.unpack(bytes(self._fields))

    def events(self, most: int) -> Iterator[Event]:
        """What waits, at most so many records; those that are not understood are passed over."""
        for record in self._records(most):
            event = decode(record)
            if event is not None:
                yield event

    def _records(self, most: int) -> Iterator[bytes]:
        page = mmap.PAGESIZE
        produced = self._produced()
        while self._at < produced and most > 0:
            start = page + (self._at & self._mask)
            (header,) = _LENGTH.unpack_from(self._data, start)
            if header & _BUSY:
                break
            length = header & ~_DISCARDED
            start += _RECORD_HEADER
            record = self._data[start : start + length]
            self._at += (_RECORD_HEADER + length + 7) & ~7
            self._release()
            most -= 1
            if not header & _DISCARDED:
                yield record

    def _produced(self) -> int:
        (position,) = _POSITION.unpack_from(self._data, 0)
        return int(position)

    def _release(self) -> None:
        """What is before this place may be overwritten."""
        _POSITION.pack_into(self._consumer, 0, self._at)
