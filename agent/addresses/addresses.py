"""Addresses: pods, hosts and nodes of every cluster, each with its entry in the address maps."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

from agent.addresses.book import Attribute, Book, claimant
from agent.addresses.entries import (
    HOST,
    IPCACHE,
    NODES,
    TUNNEL,
    BadEntry,
    NodeInfo,
    address_key,
    ip_key,
    ip_text,
    ip_value,
    is_single,
    range_of,
)
from agent.addresses.nodes import Nodes
from agent.addresses.routes import Cover, HostRoutes, Route
from agent.clusters import Clusters
from agent.facts import Change, Me
from bpf.datapath import Maps
from bpf.layout import IpcacheKey, IpcacheValue, NodeValue, TunnelValue
from clustermesh.addresses import packed
from clustermesh.keys import FIRST_UNRESERVED, Kind, cluster_of
from clustermesh.model import IPEntry

_RANK: Final = 1
SLICE: Final = 4096
"""Entries written between two yields to the loop: some 5 ms."""


class Addresses:
    """Owner of the ipcache, the tunnel map and the map of trusted nodes."""

    def __init__(self, maps: Maps, me: Me, clusters: Clusters, *, host_routes: int) -> None:
        self.held: Mapping[str, str] = {}
        """Clusters that are left out, and why."""
        self._held_ids: frozenset[int] = frozenset()
        self.refused: dict[tuple[str, str], str] = {}
        """By cluster and address: why its fact has no entry."""
        self.routes: frozenset[Route] = frozenset()
        """Where remote pods are."""
        self.host_routes = HostRoutes(host_routes)
        self._me = me
        self._clusters = clusters
        self._own_node = packed(me.node_ip)
        self._ipcache = Book(maps.ipcache, me.cluster_id)
        self._tunnel = Book(maps.tunnel, me.cluster_id)
        self._trusted = Book(maps.nodes, me.cluster_id)
        self._books = (self._trusted, self._tunnel, self._ipcache)
        books = {IPCACHE: self._ipcache, TUNNEL: self._tunnel, NODES: self._trusted}
        self.nodes = Nodes(books, me, self._reroute)
        self._maps = maps
        self._ranges: frozenset[Route] = frozenset()
        """Routes to what nodes announce."""
        self._cidrs: frozenset[str] = frozenset()
        self._cover = Cover()
        self._unchecked: deque[Iterator[bytes]] = deque()
        """Addresses that may need a route now, or none any more."""
        self._host_routes_changed = False

    # -- told -------------------------------------------------------------------------------------

    def adopt(self) -> None:
        """Take over what the maps hold, before the first fact."""
        trusted = {k: NodeValue.unpack(value).cluster_id for k, value in self._maps.nodes.items()}
        self._trusted.adopt(lambda key, _: trusted.get(key, 0))
        self._tunnel.adopt(lambda _, value: trusted.get(TunnelValue.unpack(value).address, 0))
        self._ipcache.adopt(_attribution(trusted, self._me))

    def apply(self, cluster: str, changes: Sequence[Change]) -> None:
        """Addresses and what is known of them."""
        who = self._claimant(cluster)
        native = cluster in self._me.native
        for name, fact in changes:
            try:
                key = ip_key(name)
                value = (
                    ip_value(fact, self._own_node, native=native)
                    if isinstance(fact, IPEntry)
                    else None
                )
            except BadEntry as error:
                self.refused[cluster, name] = str(error)
                continue
            if self._ipcache.state(key, who, value):
                self._count_left_out(cluster, key, value)
                self._reroute(key)
            if self.refused:
                self.refused.pop((cluster, name), None)

    def _claimant(self, cluster: str) -> int:
        return claimant(self._clusters.id_of(cluster), rank=_RANK)

    def doubt(self, cluster: str) -> None:
        """Everything of the cluster may have changed unseen."""
        self._ipcache.doubt(self._claimant(cluster))
        self.nodes.known.doubt(cluster)

    def confirm(self, cluster: str, kind: Kind, *, first: bool) -> None:
        """A full list has been told, perhaps the first."""
        if kind is Kind.NODES:
            self.nodes.confirm(cluster)
            if first:
                self._check_those_of(cluster)
        elif kind is Kind.IPS:
            self._ipcache.confirm(self._claimant(cluster))

    def drain(self, cluster: str, cluster_id: int) -> None:
        """The cluster has nothing any more."""
        self.nodes.drain(cluster)
        if cluster_id:
            for book in self._books:
                book.drain(cluster_id)
        for key in [key for key in self.refused if key[0] == cluster]:
            del self.refused[key]

    def prune(self) -> None:
        """What an earlier run left goes where nobody can claim it any more."""
        for book in self._books:
            for cluster_id in tuple(book.found()):
                if self._told(cluster_id):
                    book.prune(cluster_id)

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

    # -- routes -----------------------------------------------------------------------------------

    def _reroute(self, key: bytes) -> None:
        """Does the address need a route of its own, now that its entry has changed?"""
        claim = self._ipcache.claim_of(key)
        if claim is not None and claim.rank == _RANK and is_single(key):
            cluster = self._clusters.name_of(claim.cluster_id)
            address = _address(key)
            if self._routed(cluster) and not self._cover.covers(address):
                new = self.host_routes.add(address, cluster, claim.value[4:8])
                self._host_routes_changed |= new
                return
        if len(self.host_routes) and self.host_routes.discard(_address(key)):
            self._host_routes_changed = True
            if self.host_routes.has_room_again:
                self._check_all()

    def _count_left_out(self, cluster: str, key: bytes, value: bytes | None) -> None:
        """One that had no room for a route is gone."""
        routes = self.host_routes
        if value is None and routes.left_out and self._routed(cluster):
            address = _address(key)
            if address not in routes and not self._cover.covers(address):
                routes.left_out -= 1

    def _routed(self, cluster: str) -> bool:
        """Before its nodes are known, every address of a cluster is outside of its ranges."""
        remote = cluster != self._me.cluster and cluster not in self.held
        return remote and self._clusters.has(cluster, Kind.NODES)

    def _check(self, keys: Iterable[bytes]) -> None:
        """Look at these, bit by bit."""
        self._unchecked.append(iter(keys))

    def _check_all(self) -> None:
        self.host_routes.clear()
        self._host_routes_changed = True
        self._unchecked.clear()
        self._check(self._ipcache.all_keys())

    def _check_those_of(self, cluster: str) -> None:
        who = self._claimant(cluster)
        if cluster != self._me.cluster and self._ipcache.count(who):
            self._check(self._ipcache.keys_of({who}))

    def _check_some(self) -> None:
        if not self._unchecked:
            return
        keys = list(islice(self._unchecked[0], SLICE))
        if len(keys) < SLICE:
            self._unchecked.popleft()
        for key in keys:
            self._reroute(key)

    def review(self) -> bool:
        """Draw the conclusions from what nodes announce; whether the routes are new."""
        self._let_go()
        if self.nodes.ranges_changed:
            self.nodes.ranges_changed = False
            self._review_ranges()
        self._check_some()
        if not self._host_routes_changed or self._unchecked:
            return False
        self._host_routes_changed = False
        before, self.routes = self.routes, self._ranges.union(self.host_routes)
        return self.routes != before

    def _let_go(self) -> None:
        for book in self._books:
            if book.leaving:
                gone = book.let_go(SLICE)
                if book is self._ipcache:
                    self._check(gone)

    def _review_ranges(self) -> None:
        self._hold(self.nodes.held())
        self._ranges = frozenset(self._announced())
        cidrs = frozenset(route.cidr for route in self._ranges)
        self._host_routes_changed = True
        gained, lost, self._cidrs = cidrs - self._cidrs, self._cidrs - cidrs, cidrs
        if gained or lost:
            self._cover = Cover(cidrs)
        if gained and self.host_routes.left_out:
            self._check_all()
        elif gained:
            self._check(map(address_key, self.host_routes.addresses()))
        for cidr in lost:
            self._check(self._single_keys(cidr))

    def _hold(self, held: Mapping[str, str]) -> None:
        freed = self.held.keys() - held.keys()
        self.held = held
        ids = frozenset(self._clusters.id_of(cluster) for cluster in held)
        if ids != self._held_ids:
            self._held_ids = ids
            for book in self._books:
                book.hold(ids)
            self._check(map(address_key, self.host_routes.addresses()))
        for cluster in freed:
            self._check_those_of(cluster)

    def _single_keys(self, cidr: str) -> Iterable[bytes]:
        """Keys of addresses in a range that somebody wants."""
        version, first, last = range_of(cidr)
        length = 4 if version == 4 else 16
        if last - first < len(self._ipcache):
            numbers = range(first, last + 1)
            return (address_key(number.to_bytes(length, "big")) for number in numbers)
        inside = Cover([cidr])
        return (key for key in self._ipcache.all_keys() if inside.covers(_address(key)))

    def _announced(self) -> Iterator[Route]:
        """One route for each announced range, and for each overlay address outside of them all; of
        several nodes the first by name. A node without an IPv4 underlay address leads nowhere."""
        best: dict[str, tuple[int, str, Route]] = {}
        nodes = [node for node in self.nodes.remote() if node.cluster not in self.held]
        reachable = [node for node in nodes if node.underlay4]
        for node in reachable:
            for cidr in node.cidrs:
                _offer(best, node, cidr)
        cover = Cover(best)
        for node in reachable:
            for address in node.overlay:
                raw = packed(address)
                if not cover.covers(raw):
                    _offer(best, node, f"{address}/{len(raw) * 8}")
        return (route for _, _, route in best.values())

    # -- writing ----------------------------------------------------------------------------------

    @property
    def puts(self) -> bool:
        """Whether entries wait to be written, or conclusions to be drawn."""
        return (
            self.nodes.ranges_changed
            or bool(self._unchecked)
            or self._host_routes_changed
            or any(book.puts or book.leaving for book in self._books)
        )

    @property
    def drops(self) -> bool:
        """Whether entries wait to be removed."""
        return any(book.drops for book in self._books)

    def write(self) -> None:
        """Write some: nodes before what is behind them (contract datapath 5.3)."""
        for book in self._books:
            if book.puts:
                book.write(SLICE)
                if book.puts:
                    return

    def remove(self) -> None:
        """Remove some, the other way round."""
        for book in reversed(self._books):
            if book.drops:
                book.remove(SLICE)
                if book.drops:
                    return

    @property
    def writes(self) -> int:
        """Entries written and removed."""
        return sum(book.writes for book in self._books)

    def full(self) -> dict[str, int]:
        """By map name: entries for which there is no room."""
        maps = (self._maps.nodes, self._maps.tunnel, self._maps.ipcache)
        return {
            target.name: book.refused
            for target, book in zip(maps, self._books, strict=True)
            if book.refused
        }

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


def _offer(best: dict[str, tuple[int, str, Route]], node: NodeInfo, cidr: str) -> None:
    found = (node.cluster_id, node.name, Route(cidr, node.underlay4, node.cluster))
    best[cidr] = min(found, best.get(cidr, found))


def _address(key: bytes) -> bytes:
    return IpcacheKey.unpack(key).address


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
