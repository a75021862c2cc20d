"""Pod ranges that the own cluster's nodes announce."""

from collections.abc import Iterable, Iterator

from agent.addresses.routes import Cover


class OwnRanges:
    """Kept node by node; several may announce the same range."""

    def __init__(self) -> None:
        self.changed = False
        """Set when there are others than before; whoever has seen that clears it."""
        self._counts: dict[str, int] = {}
        self._cover = Cover()

    def change(self, before: Iterable[str], after: Iterable[str]) -> None:
        """A node has announced these, and announces those now."""
        old, new = set(before), set(after)
        for cidr in new - old:
            count = self._counts[cidr] = self._counts.get(cidr, 0) + 1
            if count == 1:
                self._cover.add(cidr)
                self.changed = True
        for cidr in old - new:
            self._counts[cidr] -= 1
            if not self._counts[cidr]:
                del self._counts[cidr]
                self._cover.discard(cidr)
                self.changed = True

    def contains(self, cidr: str) -> bool:
        """Whether a prefix lies in one of them."""
        return self._cover.contains(cidr)

    def __iter__(self) -> Iterator[str]:
        return iter(self._counts)
