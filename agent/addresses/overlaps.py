"""Which clusters announce pod ranges that others have: they are held out until that ends.

An address can be in one place only. The own cluster goes first, then lower ids; a cluster that
overlaps one before it is left out as a whole, because nothing of it can be told apart safely.

Nor may a range that is reached through the tunnel cover the end of a tunnel: what is sent to that
node would be routed into itself. Here, too, it is the later of the two clusters that has to go, so
that nobody puts out one before it by the addresses it names.
"""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

from agent.addresses.entries import range_of
from clustermesh.addresses import packed, spelled


@dataclass(frozen=True)
class Claim:
    """Address ranges of one cluster, as canonical prefixes."""

    cluster: str
    cluster_id: int
    cidrs: Sequence[str]
    hosts: Sequence[str] = ()
    """Where tunnels to it end, as IPv4 addresses."""
    native: bool = False
    """Whether packets go there without the tunnel."""

    @cached_property
    def spans(self) -> "Sequence[_Span]":
        """As numbers; most claims are compared more often than they change."""
        return _spans(self)


class Hosts:
    """Where tunnels to other clusters end (IPv4, like the underlay); several may have the same."""

    def __init__(self) -> None:
        self._counts: Counter[_Host] = Counter()
        self._sorted: list[_Host] = []

    def add(self, address: str, cluster: str) -> None:
        """One more node of the cluster has it; an empty text is none."""
        if host := _host(address, cluster):
            if not self._counts[host]:
                insort(self._sorted, host)
            self._counts[host] += 1

    def discard(self, address: str, cluster: str) -> None:
        """One node less has it."""
        if host := _host(address, cluster):
            self._counts[host] -= 1
            if not self._counts[host]:
                del self._counts[host], self._sorted[bisect_left(self._sorted, host)]

    def within(self, version: int, first: int, last: int) -> "Iterator[_Host]":
        """Those in a range."""
        if version == 4:
            for at in range(bisect_left(self._sorted, _Host(first, "")), len(self._sorted)):
                if self._sorted[at].number > last:
                    return
                yield self._sorted[at]


class _Host(NamedTuple):
    number: int
    cluster: str


def _host(address: str, cluster: str) -> _Host | None:
    return _Host(int.from_bytes(packed(address), "big"), cluster) if address else None


class _Span(NamedTuple):
    version: int
    last: int
    first: int
    cidr: str
    cluster: str


def overlaps(own: Claim, remotes: Iterable[Claim]) -> Mapping[str, str]:
    """Clusters to hold out, each with the reason. All cidrs of one cluster may overlap freely."""
    accepted, tunnelled, hosts = list(own.spans), list[_Span](), Hosts()
    held: dict[str, str] = {}
    for claim in sorted(remotes, key=lambda claim: claim.cluster_id):
        ends = Hosts()
        for address in claim.hosts:
            ends.add(address, claim.cluster)
        mine = () if claim.native else claim.spans
        fault = (
            _overlapping(accepted, claim.spans)
            or _covering(mine, (hosts, ends))
            or _covered(tunnelled, ends)
        )
        if fault:
            held[claim.cluster] = (
                f"{fault}: all of {claim.cluster} is left out until one of the two changes"
            )
            continue
        _accept(accepted, claim.spans)
        _accept(tunnelled, mine)
        for address in claim.hosts:
            hosts.add(address, claim.cluster)
    return held


def _overlapping(accepted: Sequence[_Span], spans: Sequence[_Span]) -> str:
    clash = _clash(accepted, spans)
    if clash is None:
        return ""
    return f"its range {clash[0].cidr} overlaps {clash[1].cidr} of cluster {clash[1].cluster}"


def _covering(spans: Sequence[_Span], ends: Iterable[Hosts]) -> str:
    for hosts in ends:
        for span in spans:
            for host in hosts.within(span.version, span.first, span.last):
                return f"its range {span.cidr} covers {_spelled(host)}, a node of {host.cluster}"
    return ""


def _covered(tunnelled: Sequence[_Span], ends: Hosts) -> str:
    for span in tunnelled:
        for host in ends.within(span.version, span.first, span.last):
            return f"its node {_spelled(host)} lies in {span.cidr} of cluster {span.cluster}"
    return ""


def _spelled(host: _Host) -> str:
    return spelled(host.number.to_bytes(4, "big"))


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
