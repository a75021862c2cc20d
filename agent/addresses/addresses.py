"""Addresses: pods, hosts and nodes of every cluster, each with its entry in the address maps."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from agent.addresses.admission import Admission
from agent.addresses.book import PLAIN, Book, claimant
from agent.addresses.entries import (
    HOST,
    IPCACHE,
    NODES,
    TUNNEL,
    BadEntry,
    NodeInfo,
    ip_key,
    ip_text,
    ip_value,
)
from agent.addresses.nodes import Nodes
from agent.addresses.pending import Attribute
from agent.addresses.reach import Reach
from agent.addresses.routes import HostRoutes, Route
from agent.clusters import Clusters
from agent.facts import Change, Me
from bpf.datapath import Maps
from bpf.layout import IpcacheKey, IpcacheValue, NodeValue, TunnelValue
from clustermesh.addresses import packed
from clustermesh.keys import FIRST_UNRESERVED, Kind, cluster_of
from clustermesh.model import IPEntry

SLICE: Final = 4096
"""Entries written between two yields to the loop: some 5 ms."""
SOME_NODES: Final = 256
"""Nodes whose ranges are judged between two yields to the loop: some 5 ms."""


class Addresses:
    """Owner of the ipcache, the tunnel map and the map of trusted nodes."""

    def __init__(self, maps: Maps, me: Me, clusters: Clusters, *, host_routes: int) -> None:
        self.held: Mapping[str, str] = {}
        """Clusters that are left out, and why."""
        self._held_ids: frozenset[int] = frozenset()
        self.refused: dict[tuple[str, str], str] = {}
        """By cluster and address: why its fact has no entry."""
        self._me = me
        self._clusters = clusters
        self._own_node = packed(me.node_ip)
        self._ipcache = Book(maps.ipcache, me.cluster_id)
        self._tunnel = Book(maps.tunnel, me.cluster_id)
        self._trusted = Book(maps.nodes, me.cluster_id)
        self._books = (self._trusted, self._tunnel, self._ipcache)
        books = {IPCACHE: self._ipcache, TUNNEL: self._tunnel, NODES: self._trusted}
        self.reach = Reach(me, clusters, self._ipcache, host_routes=host_routes)
        self._admission = Admission(me)
        self.nodes = Nodes(books, me, clusters, self.reach.moved)
        self._maps = maps

    # -- told -------------------------------------------------------------------------------------

    def adopt(self) -> None:
        """Take over what the maps hold, before the first fact."""
        trusted = {k: NodeValue.unpack(value).cluster_id for k, value in self._maps.nodes.items()}
        self._trusted.pending.adopt(lambda key, _: trusted.get(key, 0))
        self._tunnel.pending.adopt(
            lambda _, value: trusted.get(TunnelValue.unpack(value).address, 0)
        )
        self._ipcache.pending.adopt(_attribution(trusted, self._me))

    def apply(self, cluster: str, changes: Sequence[Change]) -> None:
        """Addresses and what is known of them. What the maps cannot say is refused, and what was
        said of that address before is not true any more."""
        who = self._claimant(cluster)
        native = cluster in self._me.native
        host_routes, count = self.reach.host_routes, self._ipcache.count
        for name, fact in changes:
            value, fault = None, ""
            try:
                key = ip_key(name)
            except BadEntry as error:
                self.refused[cluster, name] = str(error)
                continue
            try:
                if isinstance(fact, IPEntry):
                    value = ip_value(fact, self._own_node, native=native)
            except BadEntry as error:
                fault = str(error)
            told = count(who) if host_routes.left_out else -1
            if self._ipcache.state(key, who, value):
                self.reach.told(cluster, key, known=-1 < told >= count(who))
            if fault:
                self.refused[cluster, name] = fault
            elif self.refused:
                self.refused.pop((cluster, name), None)

    def _claimant(self, cluster: str) -> int:
        return claimant(self._clusters.id_of(cluster), rank=PLAIN)

    def doubt(self, cluster: str) -> None:
        """Everything of the cluster may have changed unseen."""
        self._ipcache.doubt(self._claimant(cluster))
        self.nodes.known.doubt(cluster)

    def confirm(self, cluster: str, kind: Kind, *, first: bool) -> None:
        """A full list has been told, perhaps the first."""
        if kind is Kind.NODES:
            self.nodes.confirm(cluster)
            if first:
                self.reach.nodes_known(cluster)
        elif kind is Kind.IPS:
            self._ipcache.confirm(self._claimant(cluster))

    def drain(self, cluster: str, cluster_id: int) -> None:
        """The cluster has nothing any more."""
        self.nodes.drain(cluster)
        self.reach.drain(cluster)
        if cluster_id:
            for book in self._books:
                book.drain(cluster_id)
        for key in [key for key in self.refused if key[0] == cluster]:
            del self.refused[key]

    def prune(self) -> None:
        """What an earlier run left goes where nobody can claim it any more; lives have changed."""
        self.nodes.settle()
        for book in self._books:
            for cluster_id in tuple(book.pending.found()):
                if self._told(cluster_id):
                    book.pending.prune(cluster_id)

    def _told(self, cluster_id: int) -> bool:
        """Whether everything that could claim the cluster's entries has been told."""
        clusters = self._clusters
        if not clusters.told_addresses(self._me.cluster):
            return False
        if cluster_id == 0:
            everybody = map(clusters.told_addresses, clusters.expected())
            return clusters.configuration_known and all(everybody)
        name = clusters.name_of(cluster_id)
        if not clusters.configured(cluster_id):
            return True
        return bool(name) and clusters.told_addresses(name)

    # -- conclusions -----------------------------------------------------------------------------

    def review(self) -> bool:
        """Draw the conclusions from what was told; whether the routes are new."""
        for book in self._books:
            if book.turning:
                book.turn_some()
            if book.leaving:
                gone = book.let_go()
                if book is self._ipcache:
                    self.reach.check(gone)
        if self.nodes.moved:
            self._judge()
        if not self.nodes.moved and self._admission.doubtful:
            self._hold(self._admission.conclude())
        return not self.nodes.moved and self.reach.step()

    def _judge(self) -> None:
        """What some nodes announce, and whose it is."""
        for cluster, name, node in self.nodes.take(SOME_NODES):
            self._admission.put(cluster, name, node)
            if cluster != self._me.cluster:
                self.reach.put(cluster, name, None if cluster in self.held else node)

    def _hold(self, held: Mapping[str, str]) -> None:
        changed = held.keys() ^ self.held.keys()
        freed = self.held.keys() - held.keys()
        self.held = self.reach.held = held
        for cluster in changed:
            self.nodes.again(cluster, {*self.nodes.known.of(cluster), *self.reach.names(cluster)})
        ids = frozenset(self._clusters.id_of(cluster) for cluster in held)
        if ids != self._held_ids:
            self._held_ids = ids
            for book in self._books:
                book.hold(ids)
            self.reach.check_routed()
        for cluster in freed:
            self.reach.check_all_of(self._claimant(cluster))

    # -- writing ----------------------------------------------------------------------------------

    @property
    def judging(self) -> bool:
        """Whether it is still to be concluded where nodes' ranges lead."""
        return self.nodes.moved or self._admission.doubtful

    @property
    def puts(self) -> bool:
        """Whether entries wait to be written, or conclusions to be drawn."""
        return (
            self.judging
            or self.reach.busy
            or any(book.pending.puts or book.leaving or book.turning for book in self._books)
        )

    @property
    def drops(self) -> bool:
        """Whether entries wait to be removed."""
        return any(book.pending.drops for book in self._books)

    def write(self) -> None:
        """Write some: nodes before what is behind them (contract datapath 5.3)."""
        if self._admission.doubtful or any(book.turning for book in self._books):
            return  # or what is held out would be written, and removed again
        for book in self._books:
            if book.pending.puts:
                book.turn_first(SLICE)
                book.pending.write(SLICE)
                if book.pending.puts:
                    return

    def remove(self) -> None:
        """Remove some, the other way round."""
        for book in reversed(self._books):
            if book.pending.drops:
                book.pending.remove(SLICE)
                if book.pending.drops:
                    return

    @property
    def writes(self) -> int:
        """Entries written and removed."""
        return sum(book.pending.writes for book in self._books)

    def full(self) -> dict[str, int]:
        """By map name: entries for which there is no room."""
        pending = [book.pending for book in self._books]
        return {it.map.name: it.refused for it in pending if it.refused}

    @property
    def routes(self) -> Mapping[str, Route]:
        """Where remote pods are, by prefix."""
        return self.reach.routes

    @property
    def host_routes(self) -> HostRoutes:
        """Routes to single addresses."""
        return self.reach.host_routes

    def rivalries(self) -> Iterator[tuple[str, str, str]]:
        """Who does not get an address that several clusters name, the address, and who has it."""
        name_of = self._clusters.name_of
        for key, owner, waiting in self._ipcache.contested():
            address, ones = ip_text(key)
            for cluster_id in {who >> 1 for who in waiting} - {owner >> 1}:
                yield name_of(cluster_id), f"{address}/{ones}", name_of(owner >> 1)

    def unreachable_nodes(self) -> Iterator[NodeInfo]:
        """Nodes that announce pods and no IPv4 address to reach them at."""
        return (node for node in self.nodes.remote() if node.cidrs and not node.underlay4)

    def count(self, cluster: str) -> int:
        """Addresses that a cluster has told, nodes' own not counted."""
        return self._ipcache.count(self._claimant(cluster))

    def entries(self) -> dict[str, int]:
        """By name in ``bpf.datapath.Maps``: entries that the map should have."""
        names = (NODES, TUNNEL, IPCACHE)
        return {name: len(book) for name, book in zip(names, self._books, strict=True)}


def _attribution(trusted: Mapping[bytes, int], me: Me) -> Attribute:
    """Whose an ipcache entry is: by its identity, else by the node it is behind, or is."""

    def attribute(key: bytes, value: bytes) -> int:
        identity = int.from_bytes(value[:4], "little")
        if identity >= FIRST_UNRESERVED:
            return cluster_of(identity, me.max_clusters)
        if identity == HOST:
            return me.cluster_id
        behind = trusted.get(IpcacheValue.unpack(value).tunnel_endpoint)
        if behind is not None:
            return behind
        return trusted.get(IpcacheKey.unpack(key).address, 0)

    return attribute
