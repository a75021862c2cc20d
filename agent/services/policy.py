"""What ``service.clustermesh.io/*`` annotations ask for. See docs/services.md for the truth table.

The annotations of the cluster that consumes the service decide. One key that cannot be understood,
or that contradicts another, refuses all of them: the service keeps its last good policy.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from clustermesh.local import ANNOTATIONS

LOCAL: Final = "local"
OTHERS: Final = "*"
DEFAULT_WEIGHT: Final = 100
LARGEST_WEIGHT: Final = 10_000

WEIGHTS: Final = ANNOTATIONS + "weights"
FAILOVER: Final = ANNOTATIONS + "failover"
MIN_LOCAL: Final = ANNOTATIONS + "min-local"
KNOWN: Final = frozenset({WEIGHTS, FAILOVER, MIN_LOCAL})

_CLUSTER = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?")
_NUMBER = re.compile(r"[0-9]{1,5}")


class BadPolicy(ValueError):
    """Annotations that are refused; the text names the key and what was expected."""


class MinLocal(NamedTuple):
    """How many local endpoints are enough: a number, or per cent of those known."""

    number: int
    percent: bool

    def needed(self, known: int) -> int:
        """At least one, whatever is known."""
        wanted = -(-known * self.number // 100) if self.percent else self.number
        return max(wanted, 1)


class Policy(NamedTuple):
    """How a consumer wants its connections spread; the default leaves every rule out.

    ``weights`` and ``failover`` name the own cluster ``local``; None: no such annotation.
    """

    weights: Mapping[str, int] | None = None
    failover: tuple[str, ...] | None = None
    min_local: MinLocal | None = None

    def weight(self, cluster: str) -> int:
        """The share of a cluster (``local`` for the own one), relative to the others'."""
        if self.weights is None:
            return DEFAULT_WEIGHT
        return self.weights.get(cluster, self.weights.get(OTHERS, DEFAULT_WEIGHT))

    def tier(self, cluster: str) -> int | None:
        """Which place in the failover order a cluster has; None: it is not in it."""
        if self.failover is None:
            return 0
        for name in (cluster, OTHERS):
            if name in self.failover:
                return self.failover.index(name)
        return None


PLAIN: Final = Policy()


def parse(annotations: Mapping[str, str], *, affinity: str, own: str) -> Policy:
    """The policy of a service in cluster ``own``. Raises ``BadPolicy``."""
    ours = {key: value for key, value in annotations.items() if key.startswith(ANNOTATIONS)}
    if not ours:
        return PLAIN
    for key in sorted(ours.keys() - KNOWN):
        known = ", ".join(sorted(KNOWN))
        raise BadPolicy(f"{key}: there is no such annotation; there are {known}")
    policy = Policy(
        weights=_weights(ours[WEIGHTS], own) if WEIGHTS in ours else None,
        failover=_failover(ours[FAILOVER], own) if FAILOVER in ours else None,
        min_local=_min_local(ours[MIN_LOCAL]) if MIN_LOCAL in ours else None,
    )
    _refuse_contradictions(policy, affinity)
    return policy


def _refuse_contradictions(policy: Policy, affinity: str) -> None:
    if policy.min_local is None:
        return
    if affinity == "remote":
        raise BadPolicy(
            f"{MIN_LOCAL}: contradicts affinity remote, which uses local backends last; "
            "remove one of the two"
        )
    if policy.weights is not None and LOCAL in policy.weights:
        raise BadPolicy(
            f"{WEIGHTS}: {LOCAL} contradicts {MIN_LOCAL}, which decides the local share; "
            "remove one of the two"
        )


def _weights(text: str, own: str) -> Mapping[str, int]:
    weights: dict[str, int] = {}
    for part in _parts(WEIGHTS, text):
        name, equals, number = part.partition("=")
        cluster = _cluster(WEIGHTS, name.strip(), own)
        number = number.strip()
        if not equals or not _NUMBER.fullmatch(number) or int(number) > LARGEST_WEIGHT:
            raise BadPolicy(
                f"{WEIGHTS}: {part!r}, expected CLUSTER=NUMBER with a number of 0 to "
                f"{LARGEST_WEIGHT}"
            )
        if cluster in weights:
            raise BadPolicy(f"{WEIGHTS}: {name.strip()} has two weights")
        weights[cluster] = int(number)
    return weights


def _failover(text: str, own: str) -> tuple[str, ...]:
    tiers = tuple(_cluster(FAILOVER, part, own) for part in _parts(FAILOVER, text))
    for tier in tiers:
        if tiers.count(tier) > 1:
            raise BadPolicy(f"{FAILOVER}: {tier} is named twice")
    return tiers


def _min_local(text: str) -> MinLocal:
    number, percent, rest = text.strip().partition("%")
    if not _NUMBER.fullmatch(number) or rest or int(number) < 1 or (percent and int(number) > 100):
        raise BadPolicy(f"{MIN_LOCAL}: {text!r}, expected a number from 1, or 1% to 100%")
    return MinLocal(int(number), bool(percent))


def _parts(key: str, text: str) -> Sequence[str]:
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise BadPolicy(f"{key}: {text!r} has an empty part")
    return parts


def _cluster(key: str, name: str, own: str) -> str:
    if name == own:
        return LOCAL
    if name != OTHERS and not _CLUSTER.fullmatch(name):
        raise BadPolicy(f"{key}: {name!r}, expected a cluster's name, {LOCAL} or {OTHERS}")
    return name
