"""A wire that can be cut: TCP forwarding between a client and any API server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit


class Wire:
    """Forwards bytes until ``cut``; again after ``mend``."""

    def __init__(self, url: str) -> None:
        target = urlsplit(url)
        self._target = (target.hostname, target.port)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._port = 0
        self.connections = 0
        self._flows = asyncio.Event()
        self._flows.set()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._port}"

    async def mend(self) -> None:
        """Accept connections, at the same port as before."""
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    def hold(self) -> None:
        """Carry no answers any more: the server finds that its reader does not read."""
        self._flows.clear()

    def release(self) -> None:
        """Carry them again."""
        self._flows.set()

    async def cut(self) -> None:
        """Refuse connections and reset those that are."""
        if self._server is not None:
            self._server.close()
        self.reset()
        await asyncio.sleep(0)

    def reset(self) -> None:
        """Reset the connections that are; new ones are welcome."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        ends = {writer}
        self._writers |= ends
        try:
            back, forth = await asyncio.open_connection(*self._target)
            ends |= {forth}
            self._writers |= ends
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_copy(reader, forth))
                tasks.create_task(_copy(back, writer, self._flows))
        except OSError:
            pass  # the server is down: so are we
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()


async def _copy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flows: asyncio.Event | None = None
) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(65536):
            if flows is not None:
                await flows.wait()
            writer.write(chunk)
            await writer.drain()
    writer.transport.abort()


@contextlib.asynccontextmanager
async def wire_to(url: str) -> AsyncIterator[Wire]:
    """A wire that carries."""
    wire = Wire(url)
    await wire.mend()
    try:
        yield wire
    finally:
        await wire.cut()
        await asyncio.sleep(0.05)  # its tasks end
