"""Which routes lead to the pods of other clusters: announced ranges, and addresses outside of them.

A change touches few addresses: its own, and those in a range that came or went. They are looked at
some at a time.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

from agent.addresses.announced import Announced
from agent.addresses.book import BATCH, PLAIN, Batches, Book
from agent.addresses.entries import NodeInfo, address_key, is_single, range_of
from agent.addresses.routes import Cover, HostRoutes, Route, single
from agent.clusters import Clusters
from agent.facts import Me
from bpf.layout import IpcacheKey
from clustermesh.addresses import packed
from clustermesh.keys import Kind


class Reach:
    """Owner of the routes. ``ipcache`` says who has which address."""

    def __init__(self, me: Me, clusters: Clusters, ipcache: Book, *, host_routes: int) -> None:
        self.routes: dict[str, Route] = {}
        """Where remote pods are, by prefix."""
        self.host_routes = HostRoutes(host_routes)
        self.held: Mapping[str, str] = {}
        """Clusters that are left out."""
        self._me = me
        self._clusters = clusters
        self._ipcache = ipcache
        self._announced = Announced()
        self._early: dict[str, list[bytes]] = {}
        """By cluster: addresses that came before its nodes."""
        self._unchecked: deque[Batches] = deque()
        """Addresses that may need a route now, or none any more."""
        self._crowded = False
        """Set when addresses for which there was no room may need no route any more."""
        self._touched: set[str] = set()
        """Prefixes whose routes may be others than concluded."""
        self._moved: set[str] = set()
        """Prefixes whose routes are others than when that was asked last."""

    # -- told -------------------------------------------------------------------------------------

    def told(self, cluster: str, key: bytes, *, known: bool) -> None:
        """The cluster has said something new about an address; ``known``: about one that it had
        named before, so that it has been counted."""
        counted = known and self.host_routes.left_out and is_single(key)
        if counted and self._routed(cluster):
            address = _address(key)
            if address not in self.host_routes and not self._announced.covers(address):
                self.host_routes.left_out -= 1
        self.moved(key)

    def moved(self, key: bytes) -> None:
        """The entry of an address has changed: does it need a route of its own now?"""
        claim = self._ipcache.claim_of(key)
        if claim is not None and claim.rank == PLAIN and is_single(key):
            cluster = self._clusters.name_of(claim.cluster_id)
            address = _address(key)
            if cluster and self._awaited(cluster):
                self._early.setdefault(cluster, []).append(key)
            elif self._routed(cluster) and not self._announced.covers(address):
                if self.host_routes.add(address, cluster, claim.value[4:8]):
                    self._touched.add(single(address))
                return
        if len(self.host_routes) and self.host_routes.discard(_address(key)):
            self._touched.add(single(_address(key)))
            if self.host_routes.has_room_again:
                self._check_everything()

    def _routed(self, cluster: str) -> bool:
        """Whether addresses of the cluster have a route if they are outside of every range."""
        remote = cluster != self._me.cluster and cluster not in self.held
        return remote and not self._awaited(cluster)

    def _awaited(self, cluster: str) -> bool:
        """Before its nodes are known, every address of a cluster is outside of its ranges."""
        return cluster != self._me.cluster and not self._clusters.has(cluster, Kind.NODES)

    def nodes_known(self, cluster: str) -> None:
        """Where the cluster's ranges are is known from now on."""
        self.check(list(dict.fromkeys(self._early.pop(cluster, []))))

    def drain(self, cluster: str) -> None:
        """The cluster has no addresses any more."""
        self._early.pop(cluster, None)

    def put(self, cluster: str, name: str, node: NodeInfo | None) -> None:
        """Routes may lead to this node of another cluster; None: to none of this name."""
        shift = self._announced.put(cluster, name, node)
        self._touched |= shift.touched
        if shift.came and self.host_routes.left_out:
            self._crowded = True
        for cidr in shift.came:
            self.check(list(self._routed_inside(cidr)))
        for cidr in shift.gone:
            self._unchecked.append(self._inside(cidr))

    def names(self, cluster: str) -> Iterable[str]:
        """Nodes of a cluster that routes may lead to."""
        return self._announced.names(cluster)

    # -- looking again ---------------------------------------------------------------------------

    def check(self, keys: Sequence[bytes]) -> None:
        """Look at these addresses again, bit by bit."""
        if keys:
            self._unchecked.append(keys[at : at + BATCH] for at in range(0, len(keys), BATCH))

    def check_routed(self) -> None:
        """Look at those that have a route."""
        self.check([address_key(it) for it in self.host_routes.addresses()])

    def _routed_inside(self, cidr: str) -> Iterator[bytes]:
        """Keys of those that have a route, and are in a range."""
        version, first, last = range_of(cidr)
        length = 4 if version == 4 else 16
        if last - first < len(self.host_routes):
            numbers = (number.to_bytes(length, "big") for number in range(first, last + 1))
            yield from (address_key(it) for it in numbers if it in self.host_routes)
        elif len(self.host_routes):
            inside = Cover([cidr])
            routed = self.host_routes.addresses()
            yield from (address_key(it) for it in routed if inside.covers(it))

    def check_all_of(self, who: int) -> None:
        """Look at all that a claimant has."""
        if self._ipcache.count(who):
            self._unchecked.append(self._ipcache.keys_of({who}))

    def _check_everything(self) -> None:
        self._touched.update(map(single, self.host_routes.addresses()))
        self.host_routes.clear()
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
        return bool(self._unchecked or self._touched or self._crowded)

    def step(self) -> bool:
        """Look at some addresses; whether that made other routes of the whole."""
        if self._crowded:
            self._crowded = False
            self._check_everything()
        while self._unchecked:
            keys = next(self._unchecked[0], None)
            if keys is not None:
                for key in keys:
                    self.moved(key)
                break
            self._unchecked.popleft()
        return not self._unchecked and self._conclude()

    def _conclude(self) -> bool:
        """Some of the routes that were touched; whether they are others than before."""
        moved = False
        for _ in range(min(BATCH, len(self._touched))):
            cidr = self._touched.pop()
            route = self._route(cidr)
            if route != self.routes.get(cidr):
                self._moved.add(cidr)
                moved = True
                if route is None:
                    del self.routes[cidr]
                else:
                    self.routes[cidr] = route
        if not self._touched:
            self._touched = set()  # one that was large is slow to take from
        return moved

    def _route(self, cidr: str) -> Route | None:
        route = self._announced.route(cidr)
        if route is None and len(self.host_routes):
            address = packed(cidr.partition("/")[0])
            if cidr == single(address):
                return self.host_routes.route(address)
        return route

    def take(self) -> Iterator[tuple[str, Route | None]]:
        """Routes that are others than when this was asked last, by prefix; None: gone."""
        moved, self._moved = self._moved, set()
        return ((cidr, self.routes.get(cidr)) for cidr in moved)


def _address(key: bytes) -> bytes:
    return IpcacheKey.unpack(key).address
