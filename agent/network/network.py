"""Keeps the node's network as the mesh needs it: observe, compare, change only what differs."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import msgspec
import structlog

from agent.network import device, events, nftables, routing, surroundings
from agent.network.device import Unfit
from agent.network.netlink import Link, kernel
from agent.network.wanted import Facts, Place
from bpf.errors import BpfError

log = structlog.get_logger()


class Round(msgspec.Struct, frozen=True):
    """What one comparison found: our device, how much was changed, and what is wrong."""

    link: Link | None = None
    writes: int = 0
    troubles: tuple[str, ...] = ()


class Network:
    """Owner of the device, the routing table with its rule, and the nftables table.

    ``attach`` gets the device's index in every round and says whether it had to change anything.
    """

    def __init__(
        self,
        place: Place,
        *,
        attach: Callable[[int], bool],
        report: Callable[[str | None], None],
        interval: float,
        settle: float,
    ) -> None:
        self.last = Round()
        self.writes = 0
        """Changes made since the start, all rounds together."""
        self.came = asyncio.Event()
        """Set when the device stood for the first time."""
        self._place = place
        self._attach = attach
        self._report = report
        self._interval = interval
        self._settle = settle
        self._facts = Facts()
        self._known = False
        self._asked: frozenset[str] = frozenset()
        """Every destination asked for since the last complete comparison: what of it is no longer
        wanted goes, also while an unreachable cluster keeps us from telling which other routes
        are strangers."""
        self._dirty = asyncio.Event()
        self._urgent = asyncio.Event()
        """Set when somewhere new is to be reached: that does not wait for things to settle."""
        self._compared: Facts | None = None
        self.on_round: Callable[[], None] = lambda: None
        """Called after each comparison, whatever came of it."""

    @property
    def caught_up(self) -> bool:
        """Whether a comparison has been made with every destination that is wanted now."""
        if not self._known:
            return True
        compared = self._compared
        return compared is not None and self._facts.destinations <= compared.destinations

    def want(self, facts: Facts) -> None:
        """The mesh asks for this now. Until the first call no route of ours is removed."""
        if not self._known or facts != self._facts:
            if not facts.destinations <= self._facts.destinations:
                self._urgent.set()
            self._known = True
            self._facts = facts
            self._asked |= facts.destinations
            self._dirty.set()

    def again(self) -> None:
        """Compare at once, though nothing is known to have changed."""
        self._urgent.set()
        self._dirty.set()

    async def run(self) -> None:
        """Compare at once, after each event, and every ``interval`` seconds."""
        with events.noticed(self._dirty.set):
            while True:
                self._dirty.clear()
                self._urgent.clear()
                facts = self._facts if self._known else None
                done = await asyncio.to_thread(
                    reconcile, self._place, facts, self._attach, disposable=self._asked
                )
                self._compared = facts
                if facts is not None and facts.complete and not done.troubles:
                    self._asked = facts.destinations | self._facts.destinations
                self._tell(done)
                self.on_round()
                await self._due()

    async def _due(self) -> None:
        """Until the next comparison: soon after an event, at once for somewhere new."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._interval):
                await self._dirty.wait()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._settle):
                        await self._urgent.wait()

    def _tell(self, done: Round) -> None:
        self.writes += done.writes
        self.last = done
        if done.link is not None:
            self.came.set()
        if done.writes:
            log.info("network changed", writes=done.writes)
        self._report("; ".join(done.troubles) or None)


def reconcile(
    place: Place,
    facts: Facts | None,
    attach: Callable[[int], bool],
    *,
    disposable: frozenset[str] = frozenset(),
) -> Round:
    """One comparison in the calling thread's namespace. What fails does not keep the rest back.

    Without facts only the device is looked after. While they are not complete, routes that are
    not asked for go only when they are ``disposable``.
    """
    troubles: list[str] = []
    link: Link | None = None
    writes = 0
    with kernel() as net:
        try:
            link = device.ensure(net, place)
            writes += attach(link.index)
            if facts is not None:
                troubles += routing.ensure(net, place, facts, link.index, disposable)
        except (OSError, Unfit, BpfError) as error:
            troubles.append(str(error.strerror if isinstance(error, OSError) else error))
        writes += net.writes
    if link is not None and facts is not None:
        try:
            with nftables.nft() as nft:
                present = nft.table()
                if not facts.complete:
                    facts = nftables.keep_unheard(present, facts)
                wanted = nftables.table(place, facts, device_port=link.port)
                nft.commit(nftables.changes(present, wanted))
                writes += nft.writes
                troubles += surroundings.troubles(nft, place, facts)
        except OSError as error:
            troubles.append(f"nftables: {error}")
    return Round(link, writes, tuple(troubles))


def remove(place: Place) -> list[str]:
    """Everything of ours is gone from the namespace; what was removed, in words."""
    gone = []
    with kernel() as net:
        routing.remove(net, place)
        if net.writes:
            gone.append(f"routes of table {place.table} and their rule")
        link = device.find(net, place.device)
        if link is not None:
            net.delete_link(link.index)
            gone.append(f"device {place.device}")
    with nftables.nft() as nft:
        nft.remove()
        if nft.writes:
            gone.append(f"nftables table {nftables.TABLE['family']} {nftables.TABLE['table']}")
    return gone
