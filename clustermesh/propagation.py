"""Propagation probes: a fact with the time in it, and what its arrivals say (decision 0009).

The key is ours alone. It lies where other clusters may read (contract kvstore 7) and where no
release of Cilium looks: it follows ``cilium/state/<kind>/v1/`` of the kinds it knows. [pure]
"""

from collections import deque
from collections.abc import Sequence
from math import ceil
from typing import Annotated, Final

import msgspec

from clustermesh.checks import BadFact
from clustermesh.keys import Layout
from clustermesh.status import Propagation

WINDOW: Final = 128
"""Arrivals that the figures are made of."""
NANOSECONDS: Final = 1_000_000_000
_Number = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class Probe(msgspec.Struct, frozen=True):
    """Beat ``seq`` of one life of a writer (``run``), handed to its publisher at ``sent``, in Unix
    nanoseconds of the writer's clock."""

    run: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    seq: _Number
    sent: _Number


def prefix(layout: Layout, cluster: str) -> str:
    """Where a cluster's probe is, with the slash; ``CACHE``: kvstoremesh's copy of it."""
    return f"cilium/{layout}/clustermesh-probe/v1/{cluster}/"


def key(layout: Layout, cluster: str) -> str:
    """The one key there."""
    return prefix(layout, cluster) + "latest"


def encode(probe: Probe) -> bytes:
    """The value."""
    return msgspec.json.encode(probe)


_reader = msgspec.json.Decoder(Probe)


def decode(value: bytes) -> Probe:
    """Raises ``BadFact`` naming the field."""
    try:
        return _reader.decode(value)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise BadFact(str(error)) from None


class Arrivals:
    """The probes of one cluster that reached one node's maps, the newest ``WINDOW`` of them.

    The first probe of a writer's life tells where to begin: who knows when it was written. Every
    later one is a sample, also one that had to wait for an outage to end.
    """

    def __init__(self) -> None:
        self._run = ""
        self._seq = -1
        self._seconds: deque[float] = deque(maxlen=WINDOW)
        self._last: float | None = None
        self.missed = 0
        """Beats that were overtaken by a later one before they were seen."""

    def is_news(self, probe: Probe) -> bool:
        """Whether it was not seen before."""
        return probe.run != self._run or probe.seq > self._seq

    def take(self, probe: Probe, arrived: int, moment: float) -> None:
        """It is in the maps at ``arrived`` (Unix nanoseconds), ``moment`` of a steady clock."""
        if not self.is_news(probe):
            return
        if probe.run == self._run:
            self.missed += probe.seq - self._seq - 1
            self._seconds.append((arrived - probe.sent) / NANOSECONDS)
        self._run, self._seq, self._last = probe.run, probe.seq, moment

    def told(self, moment: float, round_trip: float | None) -> Propagation | None:
        """The figures, None as long as no probe came; ``round_trip`` is the cluster's etcd's.

        No fact arrives sooner than half a round trip after it was written. If the quickest seems
        to, the writer's clock is ahead of ours by at least the difference, which is added to all.
        """
        if self._last is None:
            return None
        least = min(self._seconds, default=0.0)
        ahead = max(0.0, (round_trip or 0.0) / 2 - least) if self._seconds else 0.0
        seconds = sorted(one + ahead for one in self._seconds)
        return Propagation(
            p50=percentile(seconds, 0.5),
            p99=percentile(seconds, 0.99),
            samples=len(seconds),
            missed=self.missed,
            age=moment - self._last,
            ahead=ahead,
        )


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The value that this share does not exceed (nearest rank); None of nothing."""
    if not ordered:
        return None
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


def clocks_apart(there: Propagation | None, back: Propagation | None) -> float | None:
    """By how many seconds the clock there is behind ours, from the ways there and back.

    As NTP does it: both ways are taken to be equally long, so what one is longer than the other is
    twice the difference. ``there`` is what we see of them, ``back`` what they see of us. None when
    either is unknown.
    """
    if there is None or back is None or there.p50 is None or back.p50 is None:
        return None
    return ((there.p50 - there.ahead) - (back.p50 - back.ahead)) / 2
