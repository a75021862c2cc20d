"""Routes to remote pods in a table of our own behind one rule, and the address they come from."""

from collections.abc import Mapping, Sequence
from typing import Final

from agent.network.netlink import Kernel, Route
from agent.network.wanted import FAMILIES, Facts, Family, Place, family, of_family, source_address

METRIC: Final = {4: 0, 6: 1024}
"""What the kernel gives a route that asks for none."""


def ensure(
    kernel: Kernel, place: Place, facts: Facts, link: int, disposable: frozenset[str]
) -> list[str]:
    """Address, routes and rule as they should be. Routes come before the rule that leads there.

    What stands in the way of routes without the tunnel, in sentences: those take the tunnel.
    """
    _addresses(kernel, facts, link)
    gateways = dict(facts.gateways)
    links = {gateway: kernel.link_to(gateway) for gateway in set(gateways.values())}
    for which in FAMILIES:
        source = source_address(facts, which)
        wanted = [
            _route(prefix, METRIC[which], link, source, gateways.get(prefix, ""), links)
            for prefix in of_family(facts.destinations, which)
        ]
        kept = _routes(kernel, place.table, wanted, which, None if facts.complete else disposable)
        _rule(kernel, place, which, wanted=kept > 0)
    return [
        f"node {gateway} is not on a link of this node, so its pods are reached through the tunnel;"
        " leave its cluster out of --native-routing"
        for gateway, found in sorted(links.items())
        if found in (0, link)
    ]


def _route(
    prefix: str, metric: int, device: int, source: str, gateway: str, links: Mapping[str, int]
) -> Route:
    """By way of its node where that is on a link of ours, else of our device."""
    direct = links.get(gateway, 0)
    if direct in (0, device):
        return Route(prefix, metric, device, source)
    return Route(prefix, metric, direct, source, gateway)


def remove(kernel: Kernel, place: Place) -> None:
    """No rule and no route of ours is left."""
    for which in FAMILIES:
        _rule(kernel, place, which, wanted=False)
        _routes(kernel, place.table, [], which, None)


def _addresses(kernel: Kernel, facts: Facts, link: int) -> None:
    """An overlay address lives on our device only where no other device has it."""
    local = kernel.addresses()
    elsewhere = {address for address, index in local if index != link}
    ours = {address for address, index in local if index == link}
    wanted = set(facts.overlay) - elsewhere
    for address in sorted(wanted - ours):
        kernel.add_address(link, address, family(address))
    for address in sorted(ours - wanted):
        kernel.delete_address(link, address, family(address))


def _routes(
    kernel: Kernel,
    table: int,
    wanted: Sequence[Route],
    which: Family,
    disposable: frozenset[str] | None,
) -> int:
    """How many there are afterwards. ``disposable`` None: whatever is not wanted goes."""
    present = set(kernel.routes(table, which))
    for route in wanted:
        if route not in present:
            kernel.set_route(table, route, which)
    places = {route.place for route in wanted}
    surplus = [route for route in present if route.place not in places]
    gone = [it for it in surplus if disposable is None or it.prefix in disposable]
    for route in gone:
        kernel.delete_route(table, route, which)
    return len(wanted) + len(surplus) - len(gone)


def _rule(kernel: Kernel, place: Place, which: Family, *, wanted: bool) -> None:
    priorities = kernel.rules(place.table, which)
    if wanted and place.priority not in priorities:
        kernel.add_rule(place.table, place.priority, which)
    surplus = [it for it in priorities if it != place.priority or not wanted]
    surplus += [place.priority] * (priorities.count(place.priority) - 1) if wanted else []
    for priority in surplus:
        kernel.delete_rule(place.table, priority, which)
