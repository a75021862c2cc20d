"""Everybody's ranges side by side: which clusters have an address that another one has, too?

Asked of each range as it comes or goes. As long as nobody is in anybody's way, that is all there is
to know, however many ranges there are.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from agent.addresses.entries import range_of


class Territory(NamedTuple):
    """A range of a cluster; first and last address as numbers."""

    version: int
    first: int
    last: int
    cluster: str


class Territories:
    """Owner of the ranges of all clusters. Several nodes of one may have the same."""

    def __init__(self) -> None:
        self._counts: dict[Territory, int] = {}
        self._sorted: list[Territory] = []
        self._sizes: dict[tuple[int, int], int] = {}
        """By version and number of addresses: how many territories have that."""

    def change(
        self, cluster: str, before: Iterable[str], after: Iterable[str]
    ) -> Iterator[Territory]:
        """A node of the cluster has had the ranges ``before``, and has those ``after``. What the
        cluster has now and did not have, or has no more."""
        old, new = set(before), set(after)
        for cidr in old ^ new:
            territory = Territory(*range_of(cidr), cluster)
            if self._count(territory, 1 if cidr in new else -1):
                yield territory

    def _count(self, territory: Territory, more: int) -> bool:
        """Whether it is there now and was not before, or the other way round."""
        before = self._counts.get(territory, 0)
        size = territory.version, territory.last - territory.first + 1
        if before + more:
            self._counts[territory] = before + more
        else:
            del self._counts[territory]
            del self._sorted[bisect_left(self._sorted, territory)]
            self._sizes[size] -= 1
            if not self._sizes[size]:
                del self._sizes[size]
        if not before:
            insort(self._sorted, territory)
            self._sizes[size] = self._sizes.get(size, 0) + 1
        return before == 0 or before + more == 0

    def rivals(self, territory: Territory) -> Iterator[str]:
        """Other clusters with an address of the territory. Prefixes lie in each other or apart:
        theirs are inside of it, or it is inside of theirs."""
        version, first, last, cluster = territory
        yield from self._others(version, first, last, cluster)
        for size_version, size in self._sizes:
            if size_version == version and size > last - first + 1:
                start = first - first % size
                yield from self._others(version, start, start + size - 1, cluster, whole=True)

    def _others(
        self, version: int, first: int, last: int, cluster: str, *, whole: bool = False
    ) -> Iterator[str]:
        """Other clusters with a territory within a range, or with just this one."""
        start = (version, first, last) if whole else (version, first)
        for at in range(bisect_left(self._sorted, start), len(self._sorted)):
            found = self._sorted[at]
            if found[:3] != start if whole else found[:2] > (version, last):
                return
            if found.cluster != cluster:
                yield found.cluster
