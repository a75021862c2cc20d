"""What the mesh's facts ask of the node's network [pure]."""

from collections.abc import Iterable
from typing import Protocol

from agent.addresses.routes import Route
from agent.facts import Me
from agent.network.wanted import FAMILIES, Facts, collapsed, family


class Mesh(Protocol):
    """What the data plane knows of addresses; see ``agent.dataplane``."""

    def routes(self) -> frozenset[Route]: ...

    def own_ranges(self) -> Iterable[str]: ...

    def overlay_addresses(self) -> Iterable[str]: ...


def asked(me: Me, mesh: Mesh, *, pods: frozenset[str], complete: bool) -> Facts:
    """``pods``: prefixes of this node's pods; ``complete``: every cluster has told all."""
    routes = mesh.routes()
    cidrs = frozenset(mesh.own_ranges())
    direct = {
        route.cidr: route.node_ip
        for route in routes
        if route.cluster in me.native and family(route.cidr) == 4 and route.node_ip
    }
    return Facts(
        destinations=frozenset(route.cidr for route in routes),
        gateways=frozenset(direct.items()),
        direct=frozenset(direct),
        overlay=tuple(mesh.overlay_addresses()),
        sources=frozenset(it for which in FAMILIES for it in collapsed(cidrs | pods, which)),
        peers=frozenset(route.node_ip for route in routes) - {"0.0.0.0"},  # noqa: S104  # nowhere
        complete=complete,
    )
