"""POST /v1/knock: try TCP connections from this node, the way a process on it would.

On the unix socket only: who may use it is root on the node, and could do the same with any tool.
"""

import asyncio
import errno
import os
import socket
from ipaddress import ip_address
from typing import Final

from clustermesh.findings import Knocked
from clustermesh.http import Query, Refused

TIMEOUT: Final = 3.0
"""Seconds for one connection."""
MOST: Final = 64
AT_ONCE: Final = 8


async def knock(query: Query) -> list[Knocked]:
    """``targets``: addresses with port (``10.0.0.1:80``, ``[fd00::1]:80``), commas between them."""
    if query.keys() != {"targets"}:
        raise Refused(400, "expected the member targets, and no other")
    targets = [_target(one) for one in query["targets"].split(",") if one]
    if not 0 < len(targets) <= MOST:
        raise Refused(400, f"targets: expected 1 to {MOST}")
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(host: str, port: int) -> Knocked:
        async with turns:
            return await _connect(host, port)

    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(one(*target)) for target in targets]
    return [task.result() for task in asked]


def _target(written: str) -> tuple[str, int]:
    host, _, port = written.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        address = str(ip_address(host))
    except ValueError:
        raise Refused(400, f"targets: {written!r} is no address with a port") from None
    if not port.isdecimal() or not 0 < int(port) <= 65535:
        raise Refused(400, f"targets: {written!r} has no port")
    return address, int(port)


async def _connect(host: str, port: int) -> Knocked:
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    began = loop.time()
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as made:
        try:
            async with asyncio.timeout(TIMEOUT):
                await loop.sock_connect(made, (host, port))
        except TimeoutError:
            return Knocked(target=target, error=f"no answer within {TIMEOUT:g} s")
        except OSError as error:
            return Knocked(target=target, error=os.strerror(error.errno or errno.EIO))
    return Knocked(target=target, seconds=loop.time() - began)
