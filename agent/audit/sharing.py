"""Who serves a frontend, and with which share of new connections [pure].

Contract kvstore 6 and design 4, in the order of the composition table: who may serve at all, then
affinity, condition, failover, min-local, weights. Shares are exact fractions that add up to 1.
"""

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Final, NamedTuple

ACTIVE: Final = "active"
TERMINATING: Final = "terminating"
NOT_READY: Final = "not ready"

OURS: Final = "service.clustermesh.io/"
LOCAL: Final = "local"
OTHERS: Final = "*"
NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?")


class Endpoint(NamedTuple):
    """Where a connection may go. Cluster id 0: the own cluster."""

    address: bytes
    port: int
    proto: int
    cluster_id: int
    cluster: str = LOCAL
    condition: str = ACTIVE
    here: bool = False

    @property
    def ours(self) -> bool:
        """Whether it is in the own cluster."""
        return self.cluster_id == 0


class Wish(NamedTuple):
    """How the own cluster wants the service used."""

    affinity: str = "none"
    only_here: bool = False
    weights: Mapping[str, int] = {}
    failover: Sequence[str] = ()
    min_local: str = ""


class Misspelt(ValueError):
    """Annotations that nobody follows; an agent keeps the last good ones."""


def wish(annotations: Mapping[str, str], *, own: str, affinity: str, only_here: bool) -> Wish:
    """From a service's annotations. Raises ``Misspelt``."""
    said = {key.removeprefix(OURS): it for key, it in annotations.items() if key.startswith(OURS)}
    if unknown := said.keys() - {"weights", "failover", "min-local"}:
        raise Misspelt(f"unknown annotation {min(unknown)}")
    try:
        pairs = [(_name(name, own), _number(it)) for name, it in _pairs(said)]
        failover = [_name(name, own) for name in _words(said, "failover")]
        min_local = said.get("min-local", "1").strip()
        enough = _number(min_local.removesuffix("%"))
    except ValueError as error:
        raise Misspelt(f"annotations cannot be read: {error}") from None
    weights = dict(pairs)
    if any(weight > 10_000 for weight in weights.values()):
        raise Misspelt("a weight is above 10000")
    if len(pairs) > len(weights) or len(failover) > len(set(failover)):
        raise Misspelt("annotations name a cluster twice")
    if enough < 1 or enough > (100 if min_local.endswith("%") else 99_999):
        raise Misspelt("min-local is neither a number from 1 nor a percentage")
    if "min-local" not in said:
        return Wish(affinity, only_here, weights, failover)
    if affinity == "remote" or LOCAL in weights:
        raise Misspelt("min-local contradicts affinity remote and a weight of local")
    return Wish(affinity, only_here, weights, failover, min_local)


def _words(said: Mapping[str, str], key: str) -> list[str]:
    return said[key].split(",") if key in said else []


def _pairs(said: Mapping[str, str]) -> list[tuple[str, str]]:
    parted = [word.partition("=") for word in _words(said, "weights")]
    return [(name, number) for name, _, number in parted]


def _name(text: str, own: str) -> str:
    name = text.strip()
    if name != OTHERS and not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no cluster")
    return LOCAL if name == own else name


def _number(text: str) -> int:
    if not (text.strip().isdecimal() and int(text) <= 99_999):
        raise ValueError(f"{text!r} is no number")
    return int(text)


def shares(
    known: Sequence[Endpoint], wish: Wish, unreachable: frozenset[str] = frozenset()
) -> dict[Endpoint, Fraction]:
    """Shares of those that serve. Silent clusters serve only when nobody else is left."""
    usable = [it for it in known if _may_serve(it, wish)]
    reachable = [it for it in usable if it.cluster not in unreachable]
    return _shares(known, reachable, wish) or _shares(known, usable, wish)


def _may_serve(endpoint: Endpoint, wish: Wish) -> bool:
    return (
        endpoint.condition != NOT_READY
        and (endpoint.here or not wish.only_here)
        and _weight(endpoint, wish) > 0
        and _tier(endpoint, wish) is not None
    )


def _shares(
    known: Sequence[Endpoint], usable: Sequence[Endpoint], wish: Wish
) -> dict[Endpoint, Fraction]:
    sides = _by_affinity(usable, wish.affinity)
    serving = _first_tier(_active(sides), wish)
    ours = [it for it in serving if it.ours]
    if not wish.min_local or not ours:
        return _by_weight(serving, wish)
    stay = min(Fraction(len(ours), _enough(known, wish)), Fraction(1))
    abroad = _first_tier(_active([it for it in usable if not it.ours]), wish)
    if not abroad:
        stay = Fraction(1)
    found = {it: stay / len(ours) for it in ours}
    if stay < 1:
        found |= {it: part * (1 - stay) for it, part in _by_weight(abroad, wish).items()}
    return found


def _by_affinity(members: Sequence[Endpoint], affinity: str) -> Sequence[Endpoint]:
    ours = [it for it in members if it.ours]
    abroad = [it for it in members if not it.ours]
    if affinity == "local" and any(it.condition == ACTIVE for it in ours):
        return ours
    if affinity == "remote" and abroad:
        return abroad
    return members


def _active(members: Sequence[Endpoint]) -> Sequence[Endpoint]:
    """Those that terminate serve when there is nobody else (contract datapath 3.9)."""
    return [it for it in members if it.condition == ACTIVE] or members


def _first_tier(members: Sequence[Endpoint], wish: Wish) -> Sequence[Endpoint]:
    tiers = [(tier, it) for it in members if (tier := _tier(it, wish)) is not None]
    first = min((tier for tier, _ in tiers), default=0)
    return [it for tier, it in tiers if tier == first]


def _by_weight(members: Sequence[Endpoint], wish: Wish) -> dict[Endpoint, Fraction]:
    """Without weights all alike; with them per cluster, and alike within each."""
    if not wish.weights:
        return {it: Fraction(1, len(members)) for it in members}
    sizes: dict[int, int] = {}
    for it in members:
        sizes[it.cluster_id] = sizes.get(it.cluster_id, 0) + 1
    per_cluster = {it.cluster_id: _weight(it, wish) for it in members}
    total = sum(per_cluster.values())
    return {it: Fraction(_weight(it, wish), total * sizes[it.cluster_id]) for it in members}


def _enough(known: Sequence[Endpoint], wish: Wish) -> int:
    number = int(wish.min_local.removesuffix("%"))
    if not wish.min_local.endswith("%"):
        return number
    local = sum(it.ours for it in known)
    return max(-(-local * number // 100), 1)


def _weight(endpoint: Endpoint, wish: Wish) -> int:
    for name in (endpoint.cluster, OTHERS):
        if name in wish.weights:
            return wish.weights[name]
    return 100


def _tier(endpoint: Endpoint, wish: Wish) -> int | None:
    if not wish.failover:
        return 0
    for name in (endpoint.cluster, OTHERS):
        if name in wish.failover:
            return list(wish.failover).index(name)
    return None
