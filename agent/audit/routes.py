"""Our routing table and the rules that lead to it, read whole."""

from agent.audit.ways import LOOKED_UP, RULES, TUNNEL, Present
from agent.network.netlink import kernel
from agent.network.routes import Table
from agent.network.wanted import FAMILIES, Place


def read(place: Place) -> Present:
    """Of the calling thread's network namespace. Blocks; raises ``OSError``."""
    found: dict[str, str] = {}
    with kernel() as net, Table(place.table) as table:
        names = {link.index: link.name for link in net.links()}
        for which in FAMILIES:
            for route in table.read(which):
                device = names.get(route.link, "no device")
                ours = TUNNEL if device == place.device else f"by way of {device}"
                found[route.prefix] = route.gateway or ours
            if place.priority in net.rules(place.table, which):
                found[RULES[which]] = LOOKED_UP
    return found
