"""TCP connections that are begun and given up at once: does anybody answer at an address?

Many are under way together. Answers that come together wake the event loop once: a task and a timer
for each connection cost four times as much.
"""

import asyncio
import errno
import select
import socket
import struct
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final, NamedTuple, Self

NO_LINGER: Final = struct.pack("ii", 1, 0)
ANSWERS: Final = frozenset({0, errno.ECONNREFUSED})
"""A refusal is one: the packet went there through the mesh, and another one came back."""

Answered = Callable[[float | None], None]
"""Called once: with the seconds that the answer took, or None when there was none."""


class _Call(NamedTuple):
    socket: socket.socket
    began: float
    answered: Answered


class Dialer:
    """Owner of the connections under way; of one event loop. ``answered`` is never called before
    ``ask`` has returned."""

    def __init__(self, port: int, timeout: float) -> None:
        self._port = port
        self._timeout = timeout
        self._epoll = select.epoll()
        self._calls: dict[int, _Call] = {}
        self._ends: deque[tuple[float, int]] = deque()
        """When each is to be given up, in order; some are answered by then."""
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> Self:
        self._loop.add_reader(self._epoll.fileno(), self._ready)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        if self._timer is not None:
            self._timer.cancel()
        for call in self._calls.values():
            call.socket.close()

    def ask(self, address: str, answered: Answered) -> None:
        """Begin a connection."""
        began = self._loop.time()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        probe = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        try:
            found = probe.connect_ex((address, self._port))
        except OSError as error:
            found = error.errno or errno.EINVAL
        if found != errno.EINPROGRESS:
            probe.close()
            took = self._loop.time() - began if found in ANSWERS else None
            self._loop.call_soon(answered, took)
            return
        number = probe.fileno()
        self._calls[number] = _Call(probe, began, answered)
        self._epoll.register(number, select.EPOLLOUT)
        self._ends.append((began + self._timeout, number))
        if self._timer is None:
            self._timer = self._loop.call_at(began + self._timeout, self._late)

    def _ready(self) -> None:
        now = self._loop.time()
        for number, _ in self._epoll.poll(0):
            call = self._calls[number]
            found = call.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self._end(number, now - call.began if found in ANSWERS else None)

    def _end(self, number: int, took: float | None) -> None:
        call = self._calls.pop(number)
        call.socket.close()  # which takes it out of epoll, too
        call.answered(took)

    def _late(self) -> None:
        now = self._loop.time()
        while self._ends and self._ends[0][0] <= now:
            end, number = self._ends.popleft()
            call = self._calls.get(number)
            if call is not None and call.began + self._timeout == end:  # else of a later one
                self._end(number, None)
        self._timer = self._loop.call_at(self._ends[0][0], self._late) if self._ends else None
