"""Keeping one connection up: endpoints in turn, certificates read anew at each, and a sentence for whoever asks why not."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from random import Random

import msgspec

from kvstore.backoff import Backoff
from kvstore.client import Denied, StoreError, Unavailable
from kvstore.config import Endpoint, EtcdConfig
from kvstore.wire import Link, dial

Report = Callable[[str | None], None]


class Address(msgspec.Struct, frozen=True):
    """Where to dial, and the name the server must prove to have when it is not the address itself."""

    endpoint: Endpoint
    server_name: str | None = None


def addresses(config: EtcdConfig, random: Random) -> list[Address]:
    """Every address of the configuration in random order; a host alias (contract kvstore 5.1) is dialled by its IPs."""
    found = []
    for endpoint in config.endpoints:
        ips = config.host_aliases.get(endpoint.host)
        if ips is None:
            found.append(Address(endpoint, config.server_name))
            continue
        name = config.server_name or endpoint.host
        found += [
            Address(Endpoint(host=ip, port=endpoint.port, secure=endpoint.secure), name)
            for ip in ips
        ]
    random.shuffle(found)
    return found


class Connector:
    """The owner of the connection. ``run`` keeps it up; ``link`` waits for an attempt under way, never for a back-off."""

    def __init__(self, config: EtcdConfig, *, report: Report, random: Random) -> None:
        self._config = config
        self._report = report
        self._random = random
        self._addresses = addresses(config, random)
        self._at = 0
        self._link: Link | None = None
        self._failure: StoreError | None = None
        self._moved = asyncio.Event()
        self.connections = 0
        self.cluster_id = 0
        self.trouble: str | None = None

    @property
    def live(self) -> Link | None:
        """The connection, when there is one."""
        return self._link if self._link is not None and self._link.alive else None

    async def link(self) -> Link:
        """The connection; raises ``Unavailable`` or ``Denied`` with the last attempt's reason."""
        while True:
            if self._link is not None and self._link.alive:
                return self._link
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
        if self._link is not None:
            self._link.end(reason)

    async def run(
        self, prepare: Callable[[Link], None], serve: Callable[[Link], Awaitable[None]]
    ) -> None:
        """Connect, ``prepare`` before anybody sees the connection, ``serve`` until it ends, connect again: for ever."""
        waits = Backoff(
            first=self._config.reconnect_first,
            ceiling=self._config.reconnect_ceiling,
            random=self._random,
        )
        while True:
            started = asyncio.get_running_loop().time()
            reason = await self._live_once(prepare, serve)
            if asyncio.get_running_loop().time() - started > self._config.reconnect_ceiling:
                waits.reset()
            await self._pause(waits, reason)

    async def _pause(self, waits: Iterator[float], reason: str) -> None:
        wait = next(waits)
        self.trouble = f"{reason}; connecting again in {wait:.1f} s"
        self._report(self.trouble)
        await asyncio.sleep(wait)
        self._failure = None

    async def _live_once(
        self, prepare: Callable[[Link], None], serve: Callable[[Link], Awaitable[None]]
    ) -> str:
        """One connection from dialling to its end; why it ended."""
        address = self._addresses[self._at % len(self._addresses)]
        self._at += 1
        try:
            link = await dial(address, self._config)
        except StoreError as error:
            named = type(error)(f"{address.endpoint}: {error}")
            self._lost(
                named if isinstance(named, Denied | Unavailable) else Unavailable(str(named))
            )
            return str(named)
        try:
            prepare(link)
            self._came_up(link)
            await serve(link)
        finally:
            await link.close()
        reason = f"{address.endpoint}: {link.end_reason}"
        self._lost(Unavailable(reason))
        return reason

    def _came_up(self, link: Link) -> None:
        self._link, self._failure, self.trouble = link, None, None
        self.cluster_id = link.cluster_id
        self.connections += 1
        self._report(None)
        self._move()

    def _lost(self, failure: StoreError) -> None:
        self._link, self._failure = None, failure
        self._move()

    def _move(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()
