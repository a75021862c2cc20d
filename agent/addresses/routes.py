"""Where remote pods are: announced ranges, and single addresses outside of any of them."""

from collections.abc import Iterable
from typing import NamedTuple

from clustermesh.addresses import packed, spelled


class Route(NamedTuple):
    """Packets to ``cidr`` belong to our device; the node at ``node_ip`` has them."""

    cidr: str
    node_ip: str
    cluster: str


def single(address: bytes) -> str:
    """The prefix that is one address."""
    return f"{spelled(address)}/{len(address) * 8}"


class Cover:
    """Prefixes, asked whether one of them covers an address: one look-up per prefix length."""

    def __init__(self, cidrs: Iterable[str] = ()) -> None:
        self._prefixes: dict[tuple[int, int], set[int]] = {}
        """By bytes of an address and its bits beyond the prefix."""
        for cidr in cidrs:
            self.add(cidr)

    def add(self, cidr: str) -> None:
        """One more, as a canonical prefix."""
        size, spare, number = _place(cidr)
        self._prefixes.setdefault((size, spare), set()).add(number)

    def discard(self, cidr: str) -> None:
        """One less."""
        size, spare, number = _place(cidr)
        numbers = self._prefixes[size, spare]
        numbers.discard(number)
        if not numbers:
            del self._prefixes[size, spare]

    def contains(self, cidr: str) -> bool:
        """Whether one of them is the prefix, or a wider one."""
        size, spare, number = _place(cidr)
        return any(
            size == other and wide >= spare and number >> (wide - spare) in prefixes
            for (other, wide), prefixes in self._prefixes.items()
        )

    def covers(self, address: bytes) -> bool:
        """``address`` has 4 or 16 bytes."""
        number, length = int.from_bytes(address, "big"), len(address)
        for (size, spare), prefixes in self._prefixes.items():
            if size == length and number >> spare in prefixes:
                return True
        return False


def _place(cidr: str) -> tuple[int, int, int]:
    """Bytes of an address, its bits beyond the prefix, and the prefix without them."""
    text, _, ones = cidr.partition("/")
    raw = packed(text)
    spare = len(raw) * 8 - int(ones)
    return len(raw), spare, int.from_bytes(raw, "big") >> spare


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

    def route(self, address: bytes) -> Route | None:
        """The route to an address, if it has one."""
        found = self._routes.get(address)
        if found is None:
            return None
        cluster, endpoint = found
        return Route(single(address), spelled(endpoint), cluster)

    def __contains__(self, address: bytes) -> bool:
        return address in self._routes

    def __len__(self) -> int:
        return len(self._routes)
