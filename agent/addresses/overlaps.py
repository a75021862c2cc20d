"""Which clusters announce pod ranges that others have: they are held out until that ends.

An address can be in one place only. The own cluster goes first, then lower ids; a cluster that
overlaps one before it is left out as a whole, because nothing of it can be told apart safely.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

from agent.addresses.entries import range_of


@dataclass(frozen=True)
class Claim:
    """Address ranges of one cluster, as canonical prefixes."""

    cluster: str
    cluster_id: int
    cidrs: Sequence[str]

    @cached_property
    def spans(self) -> "Sequence[_Span]":
        """As numbers; most claims are compared more often than they change."""
        return _spans(self)


class _Span(NamedTuple):
    version: int
    last: int
    first: int
    cidr: str
    cluster: str


def overlaps(own: Claim, remotes: Iterable[Claim]) -> Mapping[str, str]:
    """Clusters to hold out, each with the reason. All cidrs of one cluster may overlap freely."""
    accepted = list(own.spans)
    held: dict[str, str] = {}
    for claim in sorted(remotes, key=lambda claim: claim.cluster_id):
        clash = _clash(accepted, claim.spans)
        if clash is None:
            _accept(accepted, claim.spans)
            continue
        span, hit = clash
        held[claim.cluster] = (
            f"its range {span.cidr} overlaps {hit.cidr} of cluster {hit.cluster}: all of "
            f"{claim.cluster} is left out until one of the two changes"
        )
    return held


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
