"""Which clusters announce pod ranges that others have: they are held out until that ends.

An address can be in one place only. The own cluster goes first, then lower ids; a cluster that
overlaps one before it is left out as a whole, because nothing of it can be told apart safely. So is
one whose ranges cover a node: what is sent to that node, all its tunnels included, would be routed
into the tunnel.
"""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Final, NamedTuple

from agent.addresses.entries import range_of
from clustermesh.addresses import packed, spelled


@dataclass(frozen=True)
class Claim:
    """Address ranges of one cluster, as canonical prefixes."""

    cluster: str
    cluster_id: int
    cidrs: Sequence[str]
    native: bool = False
    """Whether packets go there without the tunnel."""

    @cached_property
    def spans(self) -> "Sequence[_Span]":
        """As numbers; most claims are compared more often than they change."""
        return _spans(self)


class Hosts:
    """Underlay addresses of remote nodes (IPv4, like the underlay); several may have the same."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._sorted: list[int] = []

    def add(self, address: str) -> None:
        """One more node has it; an empty text is none."""
        if not address:
            return
        number = int.from_bytes(packed(address), "big")
        if not self._counts[number]:
            insort(self._sorted, number)
        self._counts[number] += 1

    def discard(self, address: str) -> None:
        """One node less has it."""
        if not address:
            return
        number = int.from_bytes(packed(address), "big")
        self._counts[number] -= 1
        if not self._counts[number]:
            del self._counts[number], self._sorted[bisect_left(self._sorted, number)]

    def within(self, version: int, first: int, last: int) -> str:
        """The first of them in a range, empty for none."""
        at = bisect_left(self._sorted, first) if version == 4 else len(self._sorted)
        if at < len(self._sorted) and self._sorted[at] <= last:
            return spelled(self._sorted[at].to_bytes(4, "big"))
        return ""


NO_HOSTS: Final = Hosts()


class _Span(NamedTuple):
    version: int
    last: int
    first: int
    cidr: str
    cluster: str


def overlaps(own: Claim, remotes: Iterable[Claim], hosts: Hosts = NO_HOSTS) -> Mapping[str, str]:
    """Clusters to hold out, each with the reason. All cidrs of one cluster may overlap freely.

    ``hosts`` are those that no range may cover, but one that needs no tunnel (``native``).
    """
    accepted = list(own.spans)
    held: dict[str, str] = {}
    for claim in sorted(remotes, key=lambda claim: claim.cluster_id):
        if clash := _clash(accepted, claim.spans):
            span, hit = clash
            fault = f"its range {span.cidr} overlaps {hit.cidr} of cluster {hit.cluster}"
        elif not claim.native and (covered := _covered(hosts, claim.spans)):
            fault = f"its range {covered[0].cidr} covers {covered[1]}, the address of a node"
        else:
            _accept(accepted, claim.spans)
            continue
        held[claim.cluster] = (
            f"{fault}: all of {claim.cluster} is left out until one of the two changes"
        )
    return held


def _covered(hosts: Hosts, spans: Sequence[_Span]) -> tuple[_Span, str] | None:
    """The first span that covers a host, and that host."""
    for block in _blocks(spans):
        if hosts.within(block[0].version, block[0].first, block[-1].last):
            found = (
                (span, host)
                for span in block
                if (host := hosts.within(span.version, span.first, span.last))
            )
            if covered := next(found, None):
                return covered
    return None


def _blocks(spans: Sequence[_Span]) -> Iterable[list[_Span]]:
    """Those of either version."""
    return (list(block) for _, block in groupby(spans, key=lambda span: span.version))


def _clash(accepted: Sequence[_Span], spans: Sequence[_Span]) -> tuple[_Span, _Span] | None:
    """The first span that shares an address with an accepted one, and that one. Where a cluster's
    ranges lie side by side and nobody else's among them, one look is enough."""
    for block in _blocks(spans):
        if _hit(accepted, block[0]._replace(last=block[-1].last)):
            found = ((span, hit) for span in block if (hit := _hit(accepted, span)))
            if clash := next(found, None):
                return clash
    return None


def _accept(accepted: list[_Span], spans: Sequence[_Span]) -> None:
    for block in _blocks(spans):
        at = bisect_left(accepted, (block[0].version, block[0].first), key=_end)
        if _hit(accepted, block[0]._replace(last=block[-1].last)):
            for span in block:
                insort(accepted, span)
        else:
            accepted[at:at] = block


def _spans(claim: Claim) -> list[_Span]:
    """Disjoint spans, sorted: what lies within another of the cluster's ranges is left out."""
    spans: list[_Span] = []
    found = sorted(
        (version, first, -last, cidr)
        for cidr in set(claim.cidrs)
        for version, first, last in [range_of(cidr)]
    )
    for version, first, minus_last, cidr in found:
        if not spans or (version, first) > (spans[-1].version, spans[-1].last):
            spans.append(_Span(version, -minus_last, first, cidr, claim.cluster))
    return spans


def _hit(accepted: Sequence[_Span], span: _Span) -> _Span | None:
    """The first accepted span that shares an address with this one."""
    at = bisect_left(accepted, (span.version, span.first), key=_end)
    if at < len(accepted):
        hit = accepted[at]
        if hit.version == span.version and hit.first <= span.last:
            return hit
    return None


def _end(span: _Span) -> tuple[int, int]:
    return span.version, span.last
