"""Which network namespace a thread is in, as the programs tell them apart."""

import socket
from typing import Final

SO_NETNS_COOKIE: Final = 71


def cookie() -> int:
    """The number of the calling thread's network namespace, unlike any other since boot."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        return int.from_bytes(asked.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), "little")
