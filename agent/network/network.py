"""Keeps the node's network as the mesh needs it: observe, compare, change only what differs."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import msgspec
import structlog

from agent.network import device, events, nftables, surroundings
from agent.network.device import Unfit
from agent.network.events import News
from agent.network.netlink import Link, kernel
from agent.network.routes import Table
from agent.network.routing import Routing, addresses, rules
from agent.network.routing import remove as remove_routes
from agent.network.wanted import Facts, Family, Place
from bpf.errors import BpfError

log = structlog.get_logger()


class Round(msgspec.Struct, frozen=True):
    """What one comparison found: our device, how much was changed, and what is wrong.

    ``refused`` are those of the troubles that come from routes; ``routed`` has the families of
    which there are any.
    """

    link: Link | None = None
    writes: int = 0
    troubles: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    routed: frozenset[Family] = frozenset()


class Network:
    """Owner of the device, the routing table with its rule, and the nftables table.

    ``attach`` gets the device's index in every complete comparison and says whether it had to
    change anything. Where only destinations are others than before, only routes are compared.
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
        self._whole = True
        """Set when more than what is wanted may have changed."""
        self._doubted = False
        """Set when somebody else may have changed our table."""
        self.on_round: Callable[[], None] = lambda: None
        """Called after each comparison, whatever came of it."""

    @property
    def lacking(self) -> frozenset[str]:
        """Destinations that are wanted now and were not in the last comparison."""
        if self.caught_up:
            return frozenset()
        compared = self._compared
        return self._facts.destinations - (compared.destinations if compared else frozenset())

    @property
    def caught_up(self) -> bool:
        """Whether a comparison has been made with every destination that is wanted now."""
        if not self._known:
            return True
        facts, compared = self._facts, self._compared
        return compared is facts or (
            compared is not None and facts.destinations <= compared.destinations
        )

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
        """Compare all of it at once, though nothing is known to have changed."""
        self._whole = self._doubted = True
        self._urgent.set()
        self._dirty.set()

    async def run(self) -> None:
        """Compare at once, after each event, and every ``interval`` seconds."""
        with (
            Table(self._place.table) as table,
            events.noticed(self._heard, port=table.port, table=table.number),
        ):
            routing = Routing(table)
            while True:
                await self._compare(routing)
                await self._due()

    def _heard(self, news: News) -> None:
        """Somebody else changed something."""
        self._doubted |= News.TABLE in news
        if news is not News.ELSEWHERE or self._facts.gateways:
            self._whole = True
            self._dirty.set()

    async def _compare(self, routing: Routing) -> None:
        self._dirty.clear()
        self._urgent.clear()
        facts, asked = self._facts if self._known else None, self._asked
        if self._doubted:
            self._doubted = False
            routing.doubt()
        if facts is None or not await self._reroute(routing, facts):
            self._whole = False
            work = partial(reconcile, disposable=asked, routing=routing)
            self._tell(await asyncio.to_thread(work, self._place, facts, self._attach))
        self._compared = facts
        if facts is not None and facts.complete and not self.last.troubles:
            self._asked = facts.destinations | self._facts.destinations
        self.on_round()

    async def _reroute(self, routing: Routing, facts: Facts) -> bool:
        """Compare routes alone if that is enough; whether it was."""
        before, last = self._compared, self.last
        if self._whole or before is None or not only_routes(self._place, last, before, facts):
            return False
        self._tell(await asyncio.to_thread(reroute, facts, last, self._asked, routing))
        return self.last.routed == last.routed  # else there is a rule too few, or too many

    async def _due(self) -> None:
        """Until the next comparison: soon after an event, at once for somewhere new."""
        try:
            async with asyncio.timeout(self._interval):
                await self._dirty.wait()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._settle):
                        await self._urgent.wait()
        except TimeoutError:
            self._whole = self._doubted = True

    def _tell(self, done: Round) -> None:
        self.writes += done.writes
        self.last = done
        if done.link is not None:
            self.came.set()
        if done.writes:
            log.info("network changed", writes=done.writes)
        self._report("; ".join(done.troubles) or None)


def only_routes(place: Place, last: Round, before: Facts, facts: Facts) -> bool:
    """Whether what has changed since the last comparison concerns routes and nothing else. [pure]

    Nodes' addresses are in the nftables table only where ports are rewritten.
    """
    if last.link is None:
        return False
    peers = before.peers if last.link.port == place.wire_port else facts.peers
    same = msgspec.structs.replace(facts, destinations=before.destinations, peers=peers)
    return same == before


def reroute(facts: Facts, last: Round, asked: frozenset[str], routing: Routing) -> Round:
    """Compare routes alone, when the last round has left device and rules as they should be."""
    before = routing.writes
    link = last.link.index if last.link else 0
    try:
        refused = tuple(routing.ensure(facts, link, disposable=_disposable(facts, asked)))
    except OSError as error:
        refused = (str(error),)
    return msgspec.structs.replace(
        last,
        writes=routing.writes - before,
        troubles=(*refused, *(it for it in last.troubles if it not in last.refused)),
        refused=refused,
        routed=routing.families(),
    )


def _disposable(facts: Facts, disposable: frozenset[str]) -> frozenset[str] | None:
    return None if facts.complete else disposable


def reconcile(
    place: Place,
    facts: Facts | None,
    attach: Callable[[int], bool],
    *,
    disposable: frozenset[str] = frozenset(),
    routing: Routing | None = None,
) -> Round:
    """One comparison in the calling thread's namespace. What fails does not keep the rest back.

    Without facts only the device is looked after. While they are not complete, routes that are
    not asked for go only when they are ``disposable``. Without ``routing`` nothing is known of our
    table.
    """
    if routing is None:
        with Table(place.table) as table:
            return _reconcile(place, facts, attach, disposable, Routing(table))
    return _reconcile(place, facts, attach, disposable, routing)


def _reconcile(
    place: Place,
    facts: Facts | None,
    attach: Callable[[int], bool],
    disposable: frozenset[str],
    routing: Routing,
) -> Round:
    troubles: list[str] = []
    refused: list[str] = []
    link: Link | None = None
    before, writes = routing.writes, 0
    with kernel() as net:
        try:
            link = device.ensure(net, place)
            writes += attach(link.index)
            if facts is not None:
                addresses(net, facts, link.index)
                spare = _disposable(facts, disposable)
                refused = routing.ensure(facts, link.index, disposable=spare)
                rules(net, place, routing.families())
        except (OSError, Unfit, BpfError) as error:
            troubles.append(str(error.strerror if isinstance(error, OSError) else error))
        writes += net.writes + routing.writes - before
    if link is not None and facts is not None:
        filtered, more = _filter(place, facts, link)
        writes += filtered
        troubles += more
    return Round(link, writes, (*refused, *troubles), tuple(refused), routing.families())


def _filter(place: Place, facts: Facts, link: Link) -> tuple[int, list[str]]:
    """The nftables table as it should be; how much was changed, and what is wrong."""
    try:
        with nftables.nft() as nft:
            present = nft.table()
            if not facts.complete:
                facts = nftables.keep_unheard(present, facts)
            wanted = nftables.table(place, facts, device_port=link.port)
            nft.commit(nftables.changes(present, wanted))
            return nft.writes, surroundings.troubles(nft, place, facts)
    except OSError as error:
        return 0, [f"nftables: {error}"]


def remove(place: Place) -> list[str]:
    """Everything of ours is gone from the namespace; what was removed, in words."""
    gone = []
    with kernel() as net, Table(place.table) as table:
        remove_routes(net, table, place)
        if net.writes or table.writes:
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
