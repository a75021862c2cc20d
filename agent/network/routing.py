"""Routes to remote pods in a table of our own behind one rule, and the address they come from."""

from collections.abc import Mapping, Sequence
from typing import Final

from agent.network.demand import Change
from agent.network.netlink import Kernel
from agent.network.routes import Route, Table
from agent.network.wanted import FAMILIES, Facts, Family, Place, family, source_address

METRIC: Final = {4: 0, 6: 1024}
"""What the kernel gives a route that asks for none."""


class Routing:
    """Our table, and what is known to be in it: it is read only when that is in doubt."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._held: dict[Family, dict[tuple[str, int], Route]] = {}
        self._prints: dict[Family, bytes] = {}
        """The table's fingerprints, of what is held now."""
        self._settled: tuple[object, ...] = ()
        """What was asked when nothing was left to do; empty when that may be otherwise now."""
        self._doubted = False

    @property
    def port(self) -> int:
        """The sender of what is written here."""
        return self._table.port

    @property
    def writes(self) -> int:
        """Routes written and removed."""
        return self._table.writes

    def doubt(self) -> None:
        """Somebody else may have changed the table. From any thread."""
        self._doubted = True

    def ensure(self, facts: Facts, link: int, *, disposable: frozenset[str] | None) -> list[str]:
        """The routes as they should be, ``link`` being our device. ``disposable`` None: whatever
        is not wanted goes. What was refused or has to take the tunnel, in sentences."""
        if self._doubted:
            self._doubted = False
            self._look()
        asked = (facts.destinations, facts.gateways, facts.overlay, link, disposable)
        if self._settled == asked and not facts.gateways:
            return []
        gateways = dict(facts.gateways)
        links = self._table.links_to(4, sorted(set(gateways.values())))
        refused: dict[Route, str] = {}
        for which in FAMILIES:
            wanted = _wanted(facts, which, link, gateways, links)
            refused |= self._change(which, wanted, disposable)
        self._settled = () if refused or self._doubted else asked
        return [
            *_refusals(refused),
            *(
                f"node {gateway} is not on a link of this node, so its pods are reached through the"
                " tunnel; leave its cluster out of --native-routing"
                for gateway, found in links.items()
                if found in (0, link)
            ),
        ]

    def _look(self) -> None:
        """What is held goes where the table is not what it was."""
        for which in FAMILIES:
            before = self._prints.get(which)
            now = self._prints[which] = self._table.fingerprint(which)
            if before != now:
                self._held.pop(which, None)
                self._settled = ()

    @property
    def sure(self) -> bool:
        """Whether it is known what the table holds."""
        return not self._doubted and len(self._held) == len(FAMILIES)

    def follow(self, change: Change, facts: Facts, link: int) -> list[str]:
        """Only what has changed since ``ensure`` was asked for ``facts``; ``sure`` only. All of it
        goes by way of our device. What was refused, in sentences."""
        refused: dict[Route, str] = {}
        for which in FAMILIES:
            source, metric = source_address(facts, which), METRIC[which]
            new = [Route(it, metric, link, source) for it in change.wanted if family(it) == which]
            places = [(it, metric) for it in change.gone if family(it) == which]
            if new or places:
                held = self._held.pop(which)
                new = [route for route in new if held.get(route.place) != route]
                gone = [held[place] for place in places if place in held]
                refused |= self._write(which, held, new, gone)
        return _refusals(refused)

    def remove(self) -> None:
        """No route is left."""
        self.doubt()
        self.ensure(Facts(), 0, disposable=None)

    def families(self) -> frozenset[Family]:
        """Those of which the table has a route."""
        return frozenset(which for which, routes in self._held.items() if routes)

    def _change(
        self, which: Family, wanted: Sequence[Route], disposable: frozenset[str] | None
    ) -> dict[Route, str]:
        """What was refused."""
        held = self._held.pop(which, None)
        if held is None:
            held = {route.place: route for route in self._table.read(which)}
        new = [route for route in wanted if held.get(route.place) != route]
        places = {route.place for route in wanted}
        gone = [
            route
            for place, route in held.items()
            if place not in places and (disposable is None or route.prefix in disposable)
        ]
        return self._write(which, held, new, gone)

    def _write(
        self,
        which: Family,
        held: dict[tuple[str, int], Route],
        new: Sequence[Route],
        gone: Sequence[Route],
    ) -> dict[Route, str]:
        """What was refused. Until all was done, what the table holds is not known."""
        if new or gone:
            self._prints.pop(which, None)
            self._settled = ()
        refused = self._table.put(which, new)
        missing = self._table.drop(which, gone)
        for route in gone:
            del held[route.place]
        held.update((route.place, route) for route in new)
        if refused or missing:
            self._doubted = True
        self._held[which] = held
        return refused


def _wanted(
    facts: Facts,
    which: Family,
    link: int,
    gateways: Mapping[str, str],
    links: Mapping[str, int],
) -> list[Route]:
    """By way of its node where that is on a link of ours, else of our device."""
    source, metric = source_address(facts, which), METRIC[which]
    wanted = []
    for prefix in facts.destinations:
        if family(prefix) != which:
            continue
        gateway = gateways.get(prefix, "")
        direct = links.get(gateway, 0)
        if direct in (0, link):
            wanted.append(Route(prefix, metric, link, source))
        else:
            wanted.append(Route(prefix, metric, direct, source, gateway))
    return wanted


def _refusals(refused: Mapping[Route, str]) -> list[str]:
    """One sentence, however many there are."""
    if not refused:
        return []
    route, reason = next(iter(refused.items()))
    way = f"via {route.gateway}" if route.gateway else f"dev {route.link}"
    words = f"{route.prefix} {way} src {route.source or 'any'}"
    return [f"the kernel refuses {len(refused)} routes, the first {words}: {reason}"]


def remove(kernel: Kernel, table: Table, place: Place) -> None:
    """No rule and no route of ours is left."""
    for which in FAMILIES:
        _rule(kernel, place, which, wanted=False)
    Routing(table).remove()


def addresses(kernel: Kernel, facts: Facts, link: int) -> None:
    """An overlay address lives on our device only where no other device has it."""
    local = kernel.addresses()
    elsewhere = {address for address, index in local if index != link}
    ours = {address for address, index in local if index == link}
    wanted = set(facts.overlay) - elsewhere
    for address in sorted(wanted - ours):
        kernel.add_address(link, address, family(address))
    for address in sorted(ours - wanted):
        kernel.delete_address(link, address, family(address))


def rules(kernel: Kernel, place: Place, wanted: frozenset[Family]) -> None:
    """One rule for each family that has routes. Routes come before the rule that leads there."""
    for which in FAMILIES:
        _rule(kernel, place, which, wanted=which in wanted)


def _rule(kernel: Kernel, place: Place, which: Family, *, wanted: bool) -> None:
    priorities = kernel.rules(place.table, which)
    if wanted and place.priority not in priorities:
        kernel.add_rule(place.table, place.priority, which)
    surplus = [it for it in priorities if it != place.priority or not wanted]
    surplus += [place.priority] * (priorities.count(place.priority) - 1) if wanted else []
    for priority in surplus:
        kernel.delete_rule(place.table, priority, which)
