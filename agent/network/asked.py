"""What the mesh's facts ask of the node's network."""

from collections.abc import Iterator
from typing import Protocol

from agent.addresses.own_ranges import OwnRanges
from agent.addresses.routes import Route
from agent.facts import Me
from agent.network.demand import Demand
from agent.network.wanted import family


class Mesh(Protocol):
    """What the data plane knows of addresses; see ``agent.dataplane``."""

    def take_routes(self) -> Iterator[tuple[str, Route | None]]: ...

    @property
    def own_ranges(self) -> OwnRanges: ...

    def overlay_addresses(self) -> tuple[str, ...]: ...


class Asking:
    """Turns what has changed in the mesh into what is asked of the network."""

    def __init__(self, me: Me, mesh: Mesh, demand: Demand) -> None:
        self._me = me
        self._mesh = mesh
        self._demand = demand
        self._pods: frozenset[str] = frozenset()
        """Pods of this node outside of the own cluster's ranges."""

    def ask(self, *, pods: frozenset[str], complete: bool) -> None:
        """``pods``: prefixes of this node's pods; ``complete``: every cluster has told all."""
        for cidr, route in self._mesh.take_routes():
            if route is None:
                self._demand.leave(cidr)
            else:
                direct = self._is_direct(route)
                self._demand.lead(cidr, route.node_ip, cluster=route.cluster, direct=direct)
        self._ask_from(self._mesh.own_ranges, pods)
        self._demand.here(overlay=self._mesh.overlay_addresses(), complete=complete)

    def _is_direct(self, route: Route) -> bool:
        native = route.cluster in self._me.native and bool(route.node_ip)
        return native and family(route.cidr) == 4

    def _ask_from(self, ranges: OwnRanges, pods: frozenset[str]) -> None:
        outside = frozenset(it for it in pods if not ranges.contains(it))
        if ranges.changed or outside != self._pods:
            ranges.changed = False
            self._pods = outside
            self._demand.from_pods(lambda: (*ranges, *outside))
