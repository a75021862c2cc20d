"""One connection for everybody who asks for the same etcd in the same way.

An agent behind a kvstoremesh has its cluster's etcd before it under the names of hundreds of remote
clusters. Each has a store of its own, with its own rate limits; below them is one connection, with
one stream for all their watches.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import msgspec

from kvstore.client import Entry
from kvstore.config import EtcdConfig
from kvstore.dial import Connector
from kvstore.etcd import EtcdStore
from kvstore.watch import ending


class _Folder(msgspec.Struct):
    """What was found under a prefix, when (of the loop's clock) and over which connection."""

    turn: asyncio.Lock
    found: dict[str, Entry] = {}
    read: float = float("-inf")
    took: float = 0.0
    connection: int = 0


class _Kept(msgspec.Struct):
    """A connection that is kept up, how many use it, and what they look at."""

    connector: Connector
    task: asyncio.Task[None]
    users: int = 0
    folders: dict[str, _Folder] = {}


class SharedStore(EtcdStore):
    """One user's store. Keys of one folder that many users look at are read together."""

    def __init__(self, config: EtcdConfig, kept: _Kept) -> None:
        super().__init__(config, kept.connector)
        self._folders = kept.folders

    async def look(self, key: str, *, within: float) -> tuple[Entry | None, float]:
        """See ``Looking``; it takes the right to read all of the key's folder."""
        prefix = key[: key.rfind("/") + 1]
        folder = self._folders.get(prefix)
        if folder is None:
            folder = self._folders[prefix] = _Folder(asyncio.Lock())
        clock = asyncio.get_running_loop().time
        async with folder.turn:
            began, connection = clock(), self.connections
            if began - folder.read <= within and folder.connection == connection:
                return folder.found.get(key), folder.took
            async with ending(self.pages(prefix)) as pages:
                folder.found = {it.key: it async for page in pages for it in page.entries}
            folder.read, folder.connection, folder.took = began, connection, clock() - began
            return folder.found.get(key), folder.took


class Connections:
    """The owner of the connections: ``run`` has to run for ``open`` to give anything out.

    A connection is made for the first who asks, and closed after the last. What is compared are the
    configurations: endpoints, the paths of certificates, and every setting.
    """

    def __init__(self, *, random: Random | None = None) -> None:
        self._random = random or Random()  # noqa: S311 - spreads load
        self._kept: list[tuple[EtcdConfig, _Kept]] = []
        self._tasks: asyncio.TaskGroup | None = None
        self._begun = asyncio.Event()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._kept)

    async def run(self) -> None:
        """Keep them up; for ever."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._begun.set()
                await asyncio.Event().wait()
        finally:
            self._begun.clear()

    @asynccontextmanager
    async def open(self, config: EtcdConfig) -> AsyncIterator[SharedStore]:
        """A store, until the block is left."""
        kept = await self._of(config)
        kept.users += 1
        try:
            yield SharedStore(config, kept)
        finally:
            kept.users -= 1
            if not kept.users:
                self._kept.remove((config, kept))
                kept.task.cancel()
                await asyncio.wait((kept.task,))

    async def _of(self, config: EtcdConfig) -> _Kept:
        for known, kept in self._kept:
            if known == config:
                return kept
        while self._tasks is None or not self._begun.is_set():
            await self._begun.wait()
        connector = Connector(config, random=self._random)
        kept = _Kept(connector, self._tasks.create_task(connector.run(), name="etcd connection"))
        self._kept.append((config, kept))
        return kept
