"""A real API server that lives in a network namespace, and a relay to it from here."""

import asyncio
import contextlib
import shlex
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from clustermesh.lab import host
from clustermesh.lab.processes import LAUNCHER
from tests.support.kube.real import Assets, RealKube

PIECE = 1 << 16


class InsideKube(RealKube):
    """Its programs run in the namespace; its ports, on loopback, are on this machine's as well."""

    def __init__(self, found: Assets, folder: Path, netns: str, *flags: str) -> None:
        wrapped = Assets(
            _wrapper(folder / "inside-apiserver", netns, found.apiserver, *flags),
            _wrapper(folder / "inside-etcd", netns, found.etcd),
        )
        super().__init__(wrapped, folder)
        self.port = int(self.url.rpartition(":")[2])
        self._netns = netns
        self._relays: list[asyncio.Server] = []

    async def start(self) -> None:
        etcd = int(self._etcd_url.rpartition(":")[2])
        for port in (self.port, etcd):
            self._relays.append(await _relay(self._netns, port))
        await super().start()

    async def close(self) -> None:
        await super().close()
        for relay in self._relays:
            relay.close()


def _wrapper(path: Path, netns: str, program: Path, *flags: str) -> Path:
    """A program that is another one in the namespace, with more flags behind those it is given."""
    argv = shlex.join((*LAUNCHER, netns, "-", str(program)))
    path.write_text(f'#!/bin/sh\nexec {argv} "$@" {shlex.join(flags)}\n')
    path.chmod(0o755)
    return path


async def _relay(netns: str, port: int) -> asyncio.Server:
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with host.inside(netns):
            there = socket.socket()
        there.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(there, ("127.0.0.1", port))
        except OSError:
            there.close()
            writer.close()
            return
        inner, outer = await asyncio.open_connection(sock=there)
        await asyncio.gather(_pump(reader, outer), _pump(inner, writer))

    return await asyncio.start_server(carry, "127.0.0.1", port)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(PIECE):
            writer.write(piece)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()


@contextlib.contextmanager
def running(kube: InsideKube) -> Iterator[InsideKube]:
    """Started, on a loop in a thread of its own; gone at the end of the block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(kube.start(), loop).result(120)
        yield kube
    finally:
        asyncio.run_coroutine_threadsafe(kube.close(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()
