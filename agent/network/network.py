"""Keeps the node's network as the mesh needs it: observe, compare, change only what differs."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import msgspec
import structlog

from agent.network import device, events, nftables, surroundings
from agent.network.demand import Change, Demand
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
    change anything. Where nothing but some destinations is asked otherwise than before, only the
    routes to these are compared.
    """

    def __init__(
        self,
        place: Place,
        demand: Demand,
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
        self._demand = demand
        self._attach = attach
        self._report = report
        self._interval = interval
        self._settle = settle
        self._dirty = asyncio.Event()
        self._urgent = asyncio.Event()
        """Set when somewhere new is to be reached: that does not wait for things to settle."""
        self._compared: Facts | None = None
        """All that was asked for at the last complete comparison."""
        self._whole = True
        """Set when more than what is wanted may have changed."""
        self._doubted = False
        """Set when somebody else may have changed our table."""
        self.on_round: Callable[[], None] = lambda: None
        """Called after each comparison, whatever came of it."""

    def asked(self) -> None:
        """The mesh may ask for something else now."""
        if self._demand.urgent:
            self._urgent.set()
        if self._demand.dirty:
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
        if news is not News.ELSEWHERE or self._demand.has_gateways:
            self._whole = True
            self._dirty.set()

    async def _compare(self, routing: Routing) -> None:
        self._dirty.clear()
        self._urgent.clear()
        if self._doubted:
            self._doubted = False
            routing.doubt()
        if not await self._follow(routing):
            self._whole = False
            await self._compare_all(routing)
        self._demand.ended()
        self.on_round()

    async def _compare_all(self, routing: Routing) -> None:
        demand, facts, withdrawn = self._demand, None, frozenset[str]()
        if demand.known:
            facts, withdrawn = demand.all()
        work = partial(reconcile, disposable=withdrawn, routing=routing)
        self._tell(await asyncio.to_thread(work, self._place, facts, self._attach))
        self._compared = facts
        if facts is not None and facts.complete and not self.last.troubles:
            demand.forget(withdrawn)

    async def _follow(self, routing: Routing) -> bool:
        """Look at routes alone, and of these at those that are asked otherwise, if that is enough;
        whether it was."""
        facts, last = self._compared, self.last
        if self._whole or facts is None or last.link is None or not routing.sure:
            return False
        if not self._demand.only_routes(peers=last.link.port == self._place.wire_port):
            return False
        change = self._demand.change()
        self._tell(await asyncio.to_thread(follow, change, facts, last, routing))
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


def follow(change: Change, facts: Facts, last: Round, routing: Routing) -> Round:
    """Compare these routes alone, when the last round, asked for ``facts``, has left device and
    rules as they should be."""
    before = routing.writes
    link = last.link.index if last.link else 0
    try:
        refused = tuple(routing.follow(change, facts, link))
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
