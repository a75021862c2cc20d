"""Which clusters are held out because they announce what others have; see ``overlaps``.

Kept node by node: as long as nobody is in anybody's way, a change costs what the node announces.
"""

from collections.abc import Mapping
from typing import Final

from agent.addresses.entries import NodeInfo, range_of
from agent.addresses.overlaps import Claim, Hosts, overlaps
from agent.addresses.territories import Territories, Territory
from agent.facts import Me

NOBODY: Final = ""


class Admission:
    """Owner of everybody's territories. Only those in each other's way are compared as a whole."""

    def __init__(self, me: Me) -> None:
        self.doubtful = False
        """Whether others may be held out than were concluded last."""
        self._me = me
        self._nodes: dict[str, dict[str, NodeInfo]] = {}
        """By cluster and name: as it was told last."""
        self._territories = Territories()
        self._hosts = Hosts()
        """Where tunnels to other clusters end."""
        self._concerned: set[str] = set()
        """Who has been in somebody's way since nobody was held out."""

    def put(self, cluster: str, name: str, node: NodeInfo | None) -> None:
        """This is the node now; None: there is none."""
        nodes = self._nodes.setdefault(cluster, {})
        old = nodes.pop(name, None)
        before = self._ranges(cluster, old)
        if node is not None:
            nodes[name] = node
        elif not nodes:
            del self._nodes[cluster]
        for territory in self._territories.change(cluster, before, self._ranges(cluster, node)):
            self._settle(territory)
        if cluster != self._me.cluster and _underlay(old) != _underlay(node):
            self._move(cluster, _underlay(old), _underlay(node))
        if old is not None and node is not None and old.cluster_id != node.cluster_id:
            self._concern({cluster} & self._concerned)  # it has another place in the order

    def _settle(self, territory: Territory) -> None:
        """A territory has come or gone: in whose way?"""
        concerned = set(self._territories.rivals(territory))
        concerned.update(host.cluster for host in self._hosts.within(*territory[:3]))
        if concerned:
            self._concern({territory.cluster, *concerned})

    def _move(self, cluster: str, before: str, after: str) -> None:
        """A tunnel ends here and not there: in whose territory?"""
        self._hosts.discard(before, cluster)
        self._hosts.add(after, cluster)
        for address in filter(None, (before, after)):
            place = Territory(*range_of(f"{address}/32"), NOBODY)
            if concerned := set(self._territories.rivals(place)):
                self._concern({cluster, *concerned})

    def _concern(self, clusters: set[str]) -> None:
        self._concerned |= clusters
        self.doubtful |= bool(clusters)

    def conclude(self) -> Mapping[str, str]:
        """Who is held out now, and why."""
        self.doubtful = False
        held = overlaps(
            self._claim(self._me.cluster),
            [self._claim(it) for it in self._concerned & self._nodes.keys() - {self._me.cluster}],
        )
        if not held:
            self._concerned.clear()
        return held

    def _claim(self, cluster: str) -> Claim:
        nodes = self._nodes.get(cluster, {}) if cluster in self._concerned else {}
        number = next((node.cluster_id for node in nodes.values()), 0)
        ranges = [cidr for node in nodes.values() for cidr in self._ranges(cluster, node)]
        hosts = [] if cluster == self._me.cluster else [it.underlay4 for it in nodes.values()]
        return Claim(cluster, number, ranges, hosts, native=cluster in self._me.native)

    def _ranges(self, cluster: str, node: NodeInfo | None) -> list[str]:
        """Pod ranges; and own nodes: routes to remote pods must not lead to either."""
        if node is None:
            return []
        if cluster != self._me.cluster:
            return list(node.cidrs)
        hosts = [f"{ip}/{128 if ':' in ip else 32}" for ip in node.addresses]
        return [*hosts, *node.cidrs]


def _underlay(node: NodeInfo | None) -> str:
    return node.underlay4 if node is not None else ""
