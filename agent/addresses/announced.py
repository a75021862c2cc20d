"""Routes to what nodes announce: their pod ranges, and overlay addresses outside of them all.

Kept node by node: a change costs what the node announces, however many others there are.
"""

from bisect import bisect_left, insort
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Generic, NamedTuple, TypeVar

from agent.addresses.entries import NodeInfo, range_of
from agent.addresses.routes import Cover, Route, single
from clustermesh.addresses import packed

K = TypeVar("K", bound=Hashable)


class Offer(NamedTuple):
    """A node's word that a range is behind it. Of several the least is taken."""

    cluster_id: int
    node: str
    route: Route


class Shift(NamedTuple):
    """What the change of a node led to, as prefixes: routes that may be others than before, ranges
    that were not covered before, and ranges that are no longer."""

    touched: frozenset[str]
    came: frozenset[str]
    gone: frozenset[str]


class Announced:
    """Owner of what remote nodes announce. One without an IPv4 underlay address leads nowhere."""

    def __init__(self) -> None:
        self._nodes: dict[str, dict[str, NodeInfo]] = {}
        """By cluster and name: as it was told last."""
        self._ranges: _Best[str] = _Best()
        self._overlays: _Best[bytes] = _Best()
        """By address."""
        self._numbers: dict[int, list[int]] = {4: [], 6: []}
        """By version: overlay addresses, sorted."""
        self._cover = Cover()
        self._outside: set[bytes] = set()
        """Overlay addresses that no range covers."""

    def route(self, cidr: str) -> Route | None:
        """The route to an announced range, or to an overlay address outside of them."""
        best = self._ranges.get(cidr)
        if best is None and self._outside:
            address = packed(cidr.partition("/")[0])
            if address in self._outside and cidr == single(address):
                best = self._overlays.get(address)
        return best.route if best is not None else None

    def covers(self, address: bytes) -> bool:
        """Whether a route leads to an address of 4 or 16 bytes."""
        return address in self._outside or self._cover.covers(address)

    def names(self, cluster: str) -> Iterable[str]:
        """Nodes of a cluster that were told."""
        return self._nodes.get(cluster, {}).keys()

    def put(self, cluster: str, name: str, node: NodeInfo | None) -> Shift:
        """This is the node now; None: there is none."""
        nodes = self._nodes.setdefault(cluster, {})
        before = nodes.pop(name, None)
        if node is not None:
            nodes[name] = node
        ranges = self._ranges.swap(_ranges(before), _ranges(node))
        overlays = self._overlays.swap(_overlays(before), _overlays(node))
        for cidr in ranges.came:
            self._cover.add(cidr)
        for cidr in ranges.gone:
            self._cover.discard(cidr)
        self._number(overlays)
        return self._concluded(ranges, overlays)

    def _number(self, overlays: "_Swap[bytes]") -> None:
        for address in overlays.came:
            insort(self._numbers[_version(address)], int.from_bytes(address, "big"))
        for address in overlays.gone:
            numbers = self._numbers[_version(address)]
            del numbers[bisect_left(numbers, int.from_bytes(address, "big"))]

    def _concluded(self, ranges: "_Swap[str]", overlays: "_Swap[bytes]") -> Shift:
        """Which overlay addresses are inside a range now, and are not, or the other way round."""
        touched, came, gone = set(ranges.touched), set(ranges.came), set(ranges.gone)
        seen = set(overlays.touched)
        for cidr in ranges.came + ranges.gone:
            seen.update(self._inside(cidr))
        for address in seen:
            was = address in self._outside
            now = address in self._overlays and not self._cover.covers(address)
            if was or now:
                touched.add(single(address))
            if now and not was:
                self._outside.add(address)
                came.add(single(address))
            elif was and not now:
                self._outside.discard(address)
                gone.add(single(address))
        return Shift(frozenset(touched), frozenset(came - gone), frozenset(gone - came))

    def _inside(self, cidr: str) -> Iterator[bytes]:
        version, first, last = range_of(cidr)
        numbers = self._numbers[version]
        for at in range(bisect_left(numbers, first), len(numbers)):
            if numbers[at] > last:
                return
            yield numbers[at].to_bytes(4 if version == 4 else 16, "big")


class _Swap(NamedTuple, Generic[K]):
    """Keys whose offers have changed; those that have one now and had none; and the reverse."""

    touched: list[K]
    came: list[K]
    gone: list[K]


class _Best(Generic[K]):
    """Of the offers under each key the least; the others wait."""

    def __init__(self) -> None:
        self._first: dict[K, Offer] = {}
        self._others: dict[K, list[Offer]] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._first

    def get(self, key: K) -> Offer | None:
        return self._first.get(key)

    def swap(self, old: Mapping[K, Offer], new: Mapping[K, Offer]) -> _Swap[K]:
        """Take back the old offers of one node, and make its new ones."""
        touched = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        had = {key for key in touched if key in self._first}
        for key in touched:
            if key in old:
                self._take_back(key, old[key])
            if key in new:
                self._make(key, new[key])
        return _Swap(
            touched,
            [key for key in touched if key in self._first and key not in had],
            [key for key in touched if key not in self._first and key in had],
        )

    def _make(self, key: K, offer: Offer) -> None:
        first = self._first.setdefault(key, offer)
        if first is not offer:
            self._first[key] = min(first, offer)
            insort(self._others.setdefault(key, []), max(first, offer))

    def _take_back(self, key: K, offer: Offer) -> None:
        others = self._others.get(key, [])
        if self._first[key] != offer:
            others.remove(offer)
        elif others:
            self._first[key] = others.pop(0)
        else:
            del self._first[key]
        if not others:
            self._others.pop(key, None)


def _ranges(node: NodeInfo | None) -> dict[str, Offer]:
    if node is None or not node.underlay4:
        return {}
    return {cidr: _offer(node, cidr) for cidr in node.cidrs}


def _overlays(node: NodeInfo | None) -> dict[bytes, Offer]:
    if node is None or not node.underlay4:
        return {}
    return {raw: _offer(node, single(raw)) for raw in map(packed, node.overlay)}


def _offer(node: NodeInfo, cidr: str) -> Offer:
    return Offer(node.cluster_id, node.name, Route(cidr, node.underlay4, node.cluster))


def _version(address: bytes) -> int:
    return 4 if len(address) == 4 else 6
