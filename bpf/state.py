"""The agent's word to the programs, in shared memory: written without a single bpf(2) call."""

import ctypes
import mmap

from bpf.layout import StateValue


class _Fields(ctypes.Structure):
    """struct cm_state; each assignment is one aligned store."""

    _fields_ = (
        ("stamp", ctypes.c_uint64),
        ("stale_after", ctypes.c_uint64),
        ("cluster_id", ctypes.c_uint32),
        ("table_size", ctypes.c_uint32),
        ("mss", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    )


class State:
    """cm_state, mapped. Writes only what differs: a restart with right values changes nothing."""

    def __init__(self, fd: int) -> None:
        self._memory = mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED)
        self._fields: _Fields | None = _Fields.from_buffer(self._memory)

    @property
    def _open(self) -> _Fields:
        if self._fields is None:
            raise ValueError("the state map is closed")
        return self._fields

    def read(self) -> StateValue:
        return StateValue.unpack(bytes(self._open))

    def stamp(self, now: int) -> None:
        """The facts were fresh at `now`, nanoseconds of CLOCK_MONOTONIC (time.monotonic_ns)."""
        self._open.stamp = now

    def never_stale(self) -> None:
        """Take back any stamp: without one, facts have no age."""
        if self._open.stamp:
            self._open.stamp = 0

    def configure(
        self,
        *,
        stale_after: int | None = None,
        cluster_id: int | None = None,
        mss: int | None = None,
        table_size: int | None = None,
    ) -> None:
        """What is not given stays. `stale_after` in ns; `mss` is that of IPv4, 0 clamps nothing."""
        wanted = {
            "stale_after": stale_after,
            "cluster_id": cluster_id,
            "mss": mss,
            "table_size": table_size,
        }
        for name, value in wanted.items():
            if value is not None and getattr(self._open, name) != value:
                setattr(self._open, name, value)

    def close(self) -> None:
        self._fields = None
        self._memory.close()
