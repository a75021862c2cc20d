"""Keeping one connection up: endpoints in turn, certificates read anew, a sentence on why it is
not.
"""

import asyncio
from collections.abc import Callable
from random import Random

import msgspec

from kvstore.backoff import Backoff
from kvstore.channel import Address, dial
from kvstore.client import Denied, StoreError, Unavailable
from kvstore.config import Endpoint, EtcdConfig
from kvstore.stream import Watches
from kvstore.wire import Link

Report = Callable[[str | None], None]


def addresses(config: EtcdConfig, random: Random) -> list[Address]:
    """Every address of the configuration in random order; a host alias (contract kvstore 5.1) is
    dialled by its IPs.
    """
    found = []
    for endpoint in config.endpoints:
        ips = config.host_aliases.get(endpoint.host)
        if not ips:
            found.append(Address(endpoint, config.server_name))
            continue
        name = config.server_name or endpoint.host
        found += [
            Address(Endpoint(host=ip, port=endpoint.port, secure=endpoint.secure), name)
            for ip in ips
        ]
    random.shuffle(found)
    return found


class Connection(msgspec.Struct, frozen=True):
    """One connection in use, the watches on it, and its number: the first is 1."""

    link: Link
    watches: Watches
    number: int


class Connector:
    """The owner of the connection. ``run`` keeps it up; whoever asks for it while an attempt is
    under way waits for its outcome, but nobody waits for a back-off.
    """

    def __init__(
        self, config: EtcdConfig, *, random: Random, report: Report = lambda _: None
    ) -> None:
        self._config = config
        self._report = report
        self._random = random
        self._addresses = addresses(config, random)
        self._at = 0
        self._now: Connection | None = None
        self._failure: StoreError | None = None
        self._moved = asyncio.Event()
        self.connections = 0
        self._cluster_id = 0
        self.trouble: str | None = None

    @property
    def cluster_id(self) -> int:
        """The id of the etcd on this connection, or on the last one; 0 before any."""
        return (self._now.link.cluster_id if self._now else 0) or self._cluster_id

    @property
    def live(self) -> Link | None:
        """The connection, when there is one."""
        return self._now.link if self._now is not None and self._now.link.alive else None

    async def connection(self) -> Connection:
        """The connection; raises ``Unavailable`` or ``Denied`` with the last attempt's reason."""
        while True:
            if self._now is not None and self._now.link.alive:
                return self._now
            if self._failure is not None:
                raise type(self._failure)(str(self._failure))
            await self._moved.wait()

    async def connected(self, *, beyond: int) -> int:
        """Wait for the next connection after number ``beyond``."""
        while self.connections <= beyond:
            await self._moved.wait()
        return self.connections

    def drop(self, reason: str) -> None:
        """End the present connection; the next one goes to the next endpoint."""
        if self._now is not None:
            self._now.link.end(reason)

    async def run(self) -> None:
        """Connect, stay connected until that ends, connect again: for ever."""
        waits = Backoff(
            first=self._config.reconnect_first,
            ceiling=self._config.reconnect_ceiling,
            random=self._random,
        )
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            reason = await self._once()
            if loop.time() - began > self._config.reconnect_ceiling:
                waits.reset()
            wait = next(waits)
            self.trouble = f"{reason}; connecting again in {wait:.1f} s"
            self._report(self.trouble)
            await asyncio.sleep(wait)
            self._failure = None

    async def _once(self) -> str:
        """One connection from dialling to its end; why it ended."""
        address = self._addresses[self._at % len(self._addresses)]
        self._at += 1
        try:
            link = await dial(address, self._config)
        except StoreError as error:
            kind = Denied if isinstance(error, Denied) else Unavailable
            return self._lost(kind(f"{address.endpoint}: {error}"))
        try:
            await self._use(link)
        finally:
            await link.close()
        return self._lost(Unavailable(f"{address.endpoint}: {link.end_reason}"))

    async def _use(self, link: Link) -> None:
        self.connections += 1
        self._cluster_id = link.cluster_id or self._cluster_id
        self._now = Connection(link, Watches(link, self._config), self.connections)
        self._failure, self.trouble = None, None
        self._report(None)
        self._move()
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self._now.watches.run(), name=f"watches of {link.name}")
            await link.ended()
            watching.cancel()

    def _lost(self, failure: StoreError) -> str:
        self._now, self._failure = None, failure
        self._move()
        return str(failure)

    def _move(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()
