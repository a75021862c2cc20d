"""Which clusters announce pod ranges that others have: they are held out until that ends.

An address can be in one place only. The own cluster goes first, then lower ids; a cluster that
overlaps one before it is left out as a whole, because nothing of it can be told apart safely.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from agent.addresses.entries import range_of


class Claim(NamedTuple):
    """Address ranges of one cluster, as canonical prefixes."""

    cluster: str
    cluster_id: int
    cidrs: list[str]


class _Span(NamedTuple):
    version: int
    last: int
    first: int
    cidr: str
    cluster: str


def overlaps(own: Claim, remotes: Iterable[Claim]) -> Mapping[str, str]:
    """Clusters to hold out, each with the reason. All cidrs of one cluster may overlap freely."""
    accepted = _spans(own)
    held: dict[str, str] = {}
    for claim in sorted(remotes, key=lambda claim: claim.cluster_id):
        spans = _spans(claim)
        clash = next(((span, hit) for span in spans if (hit := _hit(accepted, span))), None)
        if clash is None:
            for span in spans:
                insort(accepted, span)
            continue
        span, hit = clash
        held[claim.cluster] = (
            f"its range {span.cidr} overlaps {hit.cidr} of cluster {hit.cluster}: all of "
            f"{claim.cluster} is left out until one of the two changes"
        )
    return held


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
