"""Nodes of every cluster: their entries in the address maps, and the ranges they announce."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from agent.addresses.book import OF_NODES, Book, claimant
from agent.addresses.entries import IPCACHE, NodeInfo, Place, node_entries
from agent.addresses.overlaps import Claim, Hosts, overlaps
from agent.clusters import Clusters
from agent.facts import Change, Me
from agent.known import Known
from agent.ownership import Ownership
from clustermesh.model import Node


class Nodes:
    """Owner of all that is known about nodes.

    ``books`` are the address maps by name; ``on_address`` is told the ipcache keys whose entries
    are others than before.
    """

    def __init__(
        self,
        books: Mapping[str, Book],
        me: Me,
        clusters: Clusters,
        on_address: Callable[[bytes], None],
    ) -> None:
        self.known: Known[NodeInfo] = Known()
        self.ranges_changed = False
        """Set when announced ranges, or where they lead, are not what they were."""
        self._books = books
        self._me = me
        self._clusters = clusters
        self._claims: dict[str, Claim] = {}
        """By cluster: its ranges, as long as they have not changed."""
        self._hosts = Hosts()
        """Where tunnels to other clusters end."""
        self._early: set[str] = set()
        """Clusters that announce ranges in a first list, which is judged as a whole."""
        self._on_address = on_address
        self._owners: dict[str, Ownership[Place]] = {}
        """By cluster: which of its nodes has an entry that several name."""

    def apply(self, cluster: str, changes: Sequence[Change]) -> None:
        """New nodes, and nodes that are gone."""
        for name, fact in changes:
            if isinstance(fact, Node):
                self._put(cluster, name, NodeInfo.of(fact))
            else:
                self._put(cluster, name, None)

    def _put(self, cluster: str, name: str, node: NodeInfo | None) -> None:
        before = self.known.of(cluster).get(name)
        if node is None:
            self.known.drop(cluster, name)
        else:
            self.known.put(cluster, name, node)
        if before == node:
            return
        if cluster != self._me.cluster:
            self._hosts.discard(before.underlay4 if before is not None else "")
            self._hosts.add(node.underlay4 if node is not None else "")
        if _ranges(before) != _ranges(node):
            self._claims.pop(cluster, None)
            if self._clusters.awaits_nodes(cluster):
                self._early.add(cluster)
            else:
                self.ranges_changed = True
        self._enter(cluster, name, before, node)

    def _enter(
        self, cluster: str, name: str, before: NodeInfo | None, node: NodeInfo | None
    ) -> None:
        old = node_entries(before, self._me) if before is not None else {}
        new = node_entries(node, self._me) if node is not None else {}
        owners = self._owners.setdefault(cluster, Ownership())
        owners.claim(name, new)
        known = self.known.of(cluster)
        who = claimant((node or before or _NOBODY).cluster_id, rank=OF_NODES)
        for place in old.keys() | new.keys():
            owner = owners.owner(place)
            book, key = self._books[place[0]], place[1]
            value = new.get(place) if owner == name else None
            if owner is not None and owner != name:
                value = node_entries(known[owner], self._me)[place]
            if book.state(key, who, value) and place[0] == IPCACHE:
                self._on_address(key)

    def confirm(self, cluster: str) -> None:
        """A full list has been told: nodes that it did not repeat are gone."""
        for name in self.known.confirm(cluster):
            self._put(cluster, name, None)

    def settle(self) -> None:
        """Perhaps a first list has been told, or is waited for no more."""
        if told := {it for it in self._early if not self._clusters.awaits_nodes(it)}:
            self._early -= told
            self.ranges_changed = True

    def drain(self, cluster: str) -> None:
        """The cluster has no nodes any more; their entries are the books' to drain."""
        self._early.discard(cluster)
        self._claims.pop(cluster, None)
        gone = self.known.drain(cluster)
        for node in gone.values():
            self._hosts.discard(node.underlay4)
        self.ranges_changed |= bool(gone)
        self._owners.pop(cluster, None)

    def held(self) -> Mapping[str, str]:
        """Clusters whose ranges overlap those of one that goes before, or cover a node, and why."""
        own = Claim(self._me.cluster, self._me.cluster_id, self._own_ranges())
        remotes = (it for it in self.known.clusters() if it != self._me.cluster)
        claims = (self._claims.get(it) or self._claim(it) for it in remotes)
        return overlaps(own, (claim for claim in claims if claim.cidrs), self._hosts)

    def _claim(self, cluster: str) -> Claim:
        nodes = self.known.of(cluster).values()
        number = next((node.cluster_id for node in nodes), 0)
        cidrs = [cidr for node in nodes for cidr in node.cidrs]
        claim = Claim(cluster, number, cidrs, native=cluster in self._me.native)
        self._claims[cluster] = claim
        return claim

    def _own_ranges(self) -> list[str]:
        """Own pod ranges, and own nodes: routes to remote pods must not lead to either."""
        nodes = self.known.of(self._me.cluster).values()
        addresses = (ip for node in nodes for ip in node.addresses)
        hosts = [f"{ip}/{128 if ':' in ip else 32}" for ip in addresses]
        return [*hosts, *(cidr for node in nodes for cidr in node.cidrs)]

    def remote(self) -> Iterator[NodeInfo]:
        """Nodes of other clusters."""
        return (node for cluster, _, node in self.known.items() if cluster != self._me.cluster)


_NOBODY = NodeInfo("", "", 0, "", "", (), (), (), (), ())


def _ranges(node: NodeInfo | None) -> tuple[object, ...]:
    return () if node is None else (node.cidrs, node.underlay4, node.addresses, node.overlay)
