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

from kvstore.config import EtcdConfig
from kvstore.dial import Connector
from kvstore.etcd import EtcdStore


class _Kept(msgspec.Struct):
    """A connection that is kept up, and how many use it."""

    connector: Connector
    task: asyncio.Task[None]
    users: int = 0


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
    async def open(self, config: EtcdConfig) -> AsyncIterator[EtcdStore]:
        """A store, until the block is left."""
        kept = await self._of(config)
        kept.users += 1
        try:
            yield EtcdStore(config, kept.connector)
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
