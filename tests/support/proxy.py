"""A TCP forwarder that can be cut, as a network does it, without touching a network."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Proxy:
    """Forwards to a port of loopback while it is not cut."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self._target = target
        self._open: set[asyncio.StreamWriter] = set()
        self._cut = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Break every connection and accept no other."""
        self._cut = True
        for writer in self._open:
            writer.transport.abort()

    def heal(self) -> None:
        self._cut = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side ends it."""
        if self._cut:
            writer.transport.abort()
            return
        ends = {writer}
        self._open |= ends
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", self._target)
            ends |= {forth}
            self._open |= ends
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_pump(reader, forth))
                tasks.create_task(_pump(back, writer))
        except OSError:
            pass  # nobody listens there: the connection ends
        finally:
            self._open -= ends
            for end in ends:
                end.transport.abort()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(1 << 16):
            sink.write(data)
            await sink.drain()
    sink.transport.abort()


@asynccontextmanager
async def proxy_to(port: int) -> AsyncIterator[Proxy]:
    """A proxy for the length of a block."""
    proxy = Proxy(port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        proxy.cut()
        server.close()
        await asyncio.sleep(0.05)  # what was cut ends now
