"""Where remote pods are: announced ranges, and single addresses outside of any of them."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from agent.addresses.entries import NodeInfo
from clustermesh.addresses import packed, spelled


class Route(NamedTuple):
    """Packets to ``cidr`` belong to our device; the node at ``node_ip`` has them."""

    cidr: str
    node_ip: str
    cluster: str


class Cover:
    """Prefixes, asked whether one of them covers an address: one look-up per prefix length."""

    def __init__(self, cidrs: Iterable[str] = ()) -> None:
        self._prefixes: dict[tuple[int, int], set[int]] = {}
        """By bytes of an address and its bits beyond the prefix."""
        for cidr in cidrs:
            self.add(cidr)

    def add(self, cidr: str) -> None:
        """One more, as a canonical prefix."""
        text, _, ones = cidr.partition("/")
        raw = packed(text)
        spare = len(raw) * 8 - int(ones)
        prefixes = self._prefixes.setdefault((len(raw), spare), set())
        prefixes.add(int.from_bytes(raw, "big") >> spare)

    def covers(self, address: bytes) -> bool:
        """``address`` has 4 or 16 bytes."""
        number, length = int.from_bytes(address, "big"), len(address)
        for (size, spare), prefixes in self._prefixes.items():
            if size == length and number >> spare in prefixes:
                return True
        return False


def announced(nodes: Iterable[NodeInfo]) -> tuple[frozenset[Route], Cover]:
    """One route for each announced range, and for each overlay address outside of them all; of
    several nodes the first by cluster id and name. A node without an IPv4 underlay address leads
    nowhere. And what these routes cover."""
    best: dict[str, tuple[int, str, Route]] = {}
    reachable = [node for node in nodes if node.underlay4]
    for node in reachable:
        for cidr in node.cidrs:
            _offer(best, node, cidr)
    cover, outside = Cover(best), []
    for node in reachable:
        for address in node.overlay:
            raw = packed(address)
            if not cover.covers(raw):
                outside.append(f"{address}/{len(raw) * 8}")
                _offer(best, node, outside[-1])
    for cidr in outside:
        cover.add(cidr)
    return frozenset(route for _, _, route in best.values()), cover


def _offer(best: dict[str, tuple[int, str, Route]], node: NodeInfo, cidr: str) -> None:
    found = (node.cluster_id, node.name, Route(cidr, node.underlay4, node.cluster))
    best[cidr] = min(found, best[cidr]) if cidr in best else found


class HostRoutes:
    """Routes to single addresses: at most so many; what goes beyond is counted."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.left_out = 0
        self._routes: dict[bytes, tuple[str, bytes]] = {}
        """By address: the cluster, and the underlay address of the node."""

    def add(self, address: bytes, cluster: str, endpoint: bytes) -> bool:
        """Whether that changed anything."""
        wanted = (cluster, endpoint)
        if self._routes.get(address) == wanted:
            return False
        if address not in self._routes and len(self._routes) >= self.most:
            self.left_out += 1
            return False
        self._routes[address] = wanted
        return True

    def discard(self, address: bytes) -> bool:
        """Whether it was there."""
        return self._routes.pop(address, None) is not None

    def addresses(self) -> list[bytes]:
        """Addresses that have one."""
        return list(self._routes)

    @property
    def has_room_again(self) -> bool:
        """Whether some were left out, and a tenth of the room is free by now."""
        return self.left_out > 0 and len(self._routes) * 10 <= self.most * 9

    def clear(self) -> None:
        """None at all; the owner looks at every address again."""
        self._routes.clear()
        self.left_out = 0

    def __iter__(self) -> Iterator[Route]:
        for address, (cluster, endpoint) in self._routes.items():
            yield Route(f"{spelled(address)}/{len(address) * 8}", spelled(endpoint), cluster)

    def __contains__(self, address: bytes) -> bool:
        return address in self._routes

    def __len__(self) -> int:
        return len(self._routes)
