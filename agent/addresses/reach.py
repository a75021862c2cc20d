"""Which routes lead to the pods of other clusters: announced ranges, and addresses outside of them.

A change touches few addresses: its own, those that have a route, those in a range that went. They
are looked at some at a time.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from agent.addresses.book import BATCH, PLAIN, Batches, Book
from agent.addresses.entries import NodeInfo, address_key, is_single, range_of
from agent.addresses.routes import Cover, HostRoutes, Route, announced
from agent.clusters import Clusters
from agent.facts import Me
from bpf.layout import IpcacheKey
from clustermesh.keys import Kind


class Reach:
    """Owner of the routes. ``ipcache`` says who has which address."""

    def __init__(self, me: Me, clusters: Clusters, ipcache: Book, *, host_routes: int) -> None:
        self.routes: frozenset[Route] = frozenset()
        """Where remote pods are."""
        self.host_routes = HostRoutes(host_routes)
        self.held: Mapping[str, str] = {}
        """Clusters that are left out."""
        self._me = me
        self._clusters = clusters
        self._ipcache = ipcache
        self._ranges: frozenset[Route] = frozenset()
        self._cover = Cover()
        self._unchecked: deque[Batches] = deque()
        """Addresses that may need a route now, or none any more."""
        self._changed = False

    # -- told -------------------------------------------------------------------------------------

    def told(self, cluster: str, key: bytes, *, gone: bool) -> None:
        """The cluster has said something new about an address."""
        if gone and self.host_routes.left_out and self._routed(cluster):
            address = _address(key)
            if address not in self.host_routes and not self._cover.covers(address):
                self.host_routes.left_out -= 1
        self.moved(key)

    def moved(self, key: bytes) -> None:
        """The entry of an address has changed: does it need a route of its own now?"""
        claim = self._ipcache.claim_of(key)
        if claim is not None and claim.rank == PLAIN and is_single(key):
            cluster = self._clusters.name_of(claim.cluster_id)
            address = _address(key)
            if self._routed(cluster) and not self._cover.covers(address):
                self._changed |= self.host_routes.add(address, cluster, claim.value[4:8])
                return
        if len(self.host_routes) and self.host_routes.discard(_address(key)):
            self._changed = True
            if self.host_routes.has_room_again:
                self._check_everything()

    def _routed(self, cluster: str) -> bool:
        """Before its nodes are known, every address of a cluster is outside of its ranges."""
        remote = cluster != self._me.cluster and cluster not in self.held
        return remote and self._clusters.has(cluster, Kind.NODES)

    def announce(self, nodes: Iterable[NodeInfo]) -> None:
        """These are the nodes that routes may lead to."""
        before = frozenset(route.cidr for route in self._ranges)
        self._ranges, cover = announced(nodes)
        cidrs = frozenset(route.cidr for route in self._ranges)
        self._changed = True
        if cidrs == before:
            return
        self._cover = cover
        if cidrs - before and self.host_routes.left_out:
            self._check_everything()
        elif cidrs - before:
            self.check_routed()
        for cidr in before - cidrs:
            self._unchecked.append(self._inside(cidr))

    # -- looking again ---------------------------------------------------------------------------

    def check(self, keys: Sequence[bytes]) -> None:
        """Look at these addresses again, bit by bit."""
        if keys:
            self._unchecked.append(keys[at : at + BATCH] for at in range(0, len(keys), BATCH))

    def check_routed(self) -> None:
        """Look at those that have a route."""
        self.check([address_key(it) for it in self.host_routes.addresses()])

    def check_all_of(self, who: int) -> None:
        """Look at all that a claimant has."""
        if self._ipcache.count(who):
            self._unchecked.append(self._ipcache.keys_of({who}))

    def _check_everything(self) -> None:
        self.host_routes.clear()
        self._changed = True
        self._unchecked.clear()
        self._unchecked.append(self._ipcache.all_keys())

    def _inside(self, cidr: str) -> Batches:
        """Addresses in a range that somebody may want."""
        version, first, last = range_of(cidr)
        length = 4 if version == 4 else 16
        if last - first < len(self._ipcache):
            for at in range(first, last + 1, BATCH):
                numbers = range(at, min(at + BATCH, last + 1))
                yield [address_key(number.to_bytes(length, "big")) for number in numbers]
            return
        inside = Cover([cidr])
        for keys in self._ipcache.all_keys():
            yield [key for key in keys if inside.covers(_address(key))]

    @property
    def busy(self) -> bool:
        """Whether there is something to look at, or to conclude."""
        return bool(self._unchecked) or self._changed

    def step(self) -> bool:
        """Look at some addresses; whether that made other routes of the whole."""
        while self._unchecked:
            keys = next(self._unchecked[0], None)
            if keys is not None:
                for key in keys:
                    self.moved(key)
                break
            self._unchecked.popleft()
        if not self._changed or self._unchecked:
            return False
        self._changed = False
        before, self.routes = self.routes, self._ranges.union(self.host_routes)
        return self.routes != before


def _address(key: bytes) -> bytes:
    return IpcacheKey.unpack(key).address
