"""A listening socket that knows whom it accepted.

Those who are still shaking hands are known to nobody else: a server that is closed then leaves them
open, and the next test is blamed for it.
"""

import asyncio
import contextlib
import socket
from typing import Any
from weakref import WeakSet


class Listening(socket.socket):
    """Bound to an address of IPv4."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_STREAM)
        self._accepted: WeakSet[socket.socket] = WeakSet()
        self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.bind((host, port))

    def accept(self) -> tuple[socket.socket, Any]:
        """As any socket does."""
        accepted, address = super().accept()
        self._accepted.add(accepted)
        return accepted, address

    def open(self) -> bool:
        """Whether anybody who was accepted has not been closed yet."""
        return any(accepted.fileno() >= 0 for accepted in list(self._accepted))

    def hang_up(self) -> None:
        """End what was accepted: whoever reads it finds its end."""
        for accepted in list(self._accepted):
            with contextlib.suppress(OSError):
                accepted.shutdown(socket.SHUT_RDWR)

    async def hung_up(self) -> None:
        """Until everybody has closed it."""
        async with asyncio.timeout(30):
            while self.open():
                self.hang_up()  # who was accepted meanwhile, too
                await asyncio.sleep(0.001)
