"""Try connections from where this process is, as any program there would; also as a program.

    await knock(["10.0.0.1:80", "[fd00::1]:53/UDP"]) -> list[Knocked]
    python -m clustermesh.knocking TARGET ...        # prints the same as JSON

A TCP target must take the connection. A UDP target gets one datagram: it fails when that is
refused or cannot be sent; a service that is silent to what it does not understand does not.
"""

import asyncio
import errno
import os
import socket
import sys
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final, NamedTuple

import msgspec

from clustermesh.findings import Knocked

TIMEOUT: Final = 3.0
"""Seconds for one connection."""
SILENCE: Final = 1.0
"""Seconds after which a datagram was not refused."""
AT_ONCE: Final = 8
DATAGRAM: Final = b"\n"


class Target(NamedTuple):
    """Where to; ``written`` is how the asker knows it."""

    host: str
    port: int
    udp: bool
    written: str


def target(written: str) -> Target:
    """Raises ``ValueError``."""
    spot, slash, protocol = written.partition("/")
    host, _, port = spot.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        address = str(ip_address(host))
    except ValueError:
        raise ValueError(f"{written!r} is no address with a port") from None
    if not port.isdecimal() or not 0 < int(port) <= 65535:
        raise ValueError(f"{written!r} has no port")
    if slash and protocol not in ("TCP", "UDP"):
        raise ValueError(f"{written!r} is neither TCP nor UDP")
    return Target(address, int(port), protocol == "UDP", written)


async def knock(targets: Sequence[Target]) -> list[Knocked]:
    """Several at a time."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(where: Target) -> Knocked:
        async with turns:
            return await (_sent if where.udp else _connected)(where)

    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(one(where)) for where in targets]
    return [task.result() for task in asked]


async def _connected(where: Target) -> Knocked:
    loop = asyncio.get_running_loop()
    began = loop.time()
    with _socket(where, socket.SOCK_STREAM) as made:
        try:
            async with asyncio.timeout(TIMEOUT):
                await loop.sock_connect(made, (where.host, where.port))
        except TimeoutError:
            return Knocked(target=where.written, error=f"no answer within {TIMEOUT:g} s")
        except OSError as error:
            return Knocked(target=where.written, error=_said(error))
    return Knocked(target=where.written, seconds=loop.time() - began)


async def _sent(where: Target) -> Knocked:
    loop = asyncio.get_running_loop()
    began = loop.time()
    with _socket(where, socket.SOCK_DGRAM) as made:
        try:
            await loop.sock_connect(made, (where.host, where.port))
            async with asyncio.timeout(SILENCE):
                await loop.sock_sendall(made, DATAGRAM)
                await loop.sock_recv(made, 1)
        except TimeoutError:
            return Knocked(target=where.written)  # neither answered nor refused
        except OSError as error:
            return Knocked(target=where.written, error=_said(error))
    return Knocked(target=where.written, seconds=loop.time() - began)


def _socket(where: Target, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
    return socket.socket(family, kind | socket.SOCK_NONBLOCK)


def _said(error: OSError) -> str:
    return os.strerror(error.errno or errno.EIO)


def main() -> None:
    found = asyncio.run(knock([target(word) for word in sys.argv[1:]]))
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")


if __name__ == "__main__":
    main()
