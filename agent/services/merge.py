"""Which backends of which clusters a frontend uses, and why not the others.

The rules are contract kvstore 6 (who may be used, affinity) and then ours: failover, min-local and
weights, each of which changes nothing when its annotation is absent. docs/services.md has them as
one truth table. Everything depends on the present facts only, so all nodes of a cluster agree.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from math import lcm
from typing import Final, NamedTuple

from agent.services.offers import PROTOCOL_NAMES, Condition, Group, Offer
from agent.services.policy import LOCAL, PLAIN, Policy
from clustermesh.local import Frontend


class Backend(NamedTuple):
    """One endpoint of a frontend. Cluster id 0: the own cluster's."""

    address: bytes
    port: int
    proto: int
    cluster_id: int
    cluster: str
    condition: Condition
    here: bool = False

    @property
    def local(self) -> bool:
        """Whether it is in the own cluster."""
        return self.cluster_id == 0


class Verdict(NamedTuple):
    """A backend and its share of new connections; ``why`` says what keeps it out when that is 0."""

    backend: Backend
    weight: int
    why: str


class Consumer(NamedTuple):
    """What the own cluster says about the service, as far as it decides who is used."""

    is_global: bool
    affinity: str = "none"
    only_here: bool = False
    """A traffic policy of Local: endpoints on this node or none."""
    policy: Policy = PLAIN


USED: Final = ""
NOT_READY: Final = "not ready"
TERMINATING: Final = "terminating: it keeps its connections and gets no new ones"
NOT_HERE: Final = "the traffic policy is Local and it is not on this node"
DRAINED: Final = "its cluster has weight 0"
UNREACHABLE: Final = "its cluster does not answer probes"
HELD_BACK_LOCAL: Final = "affinity local: there are local backends"
HELD_BACK_REMOTE: Final = "affinity remote: there are remote backends"
NO_TIER: Final = "its cluster is not in the failover order"
LATER_TIER: Final = "an earlier cluster of the failover order has backends"
ENOUGH_LOCAL: Final = "min-local: there are enough local backends"


def candidates(
    frontend: Frontend, proto: int, family: int, offers: Iterable[Offer]
) -> list[Backend]:
    """Endpoints that match by protocol, family and port name, each address and port once.

    A port name counts when both sides have one (contract kvstore 6.2). The own cluster's word
    about an address goes before a remote's, a lower cluster id before a higher. Sorted.
    """
    found: dict[tuple[bytes, int], Backend] = {}
    for offer in sorted(offers, key=lambda offer: offer.cluster_id):
        for group in offer.groups:
            for port in matching(frontend.name, proto, group):
                for address in group.addresses:
                    if len(address) == family and (address, port) not in found:
                        found[address, port] = Backend(
                            address, port, proto, offer.cluster_id, offer.cluster,
                            group.condition, group.here,
                        )  # fmt: skip
    return [found[key] for key in sorted(found)]


def matching(name: str, proto: int, group: Group) -> set[int]:
    """Target ports for a frontend port. One target may have several names, all of which count."""
    of_proto = [port for port in group.ports if port.proto == proto]
    names: dict[int, set[str]] = {}
    for port in of_proto:
        names.setdefault(port.port, set()).update({port.name} - {""})
    return {port for port, known in names.items() if not name or not known or name in known}


def mismatch(frontend: Frontend, proto: int, group: Group) -> str:
    """Why none of a group's ports matches, empty when one does."""
    if matching(frontend.name, proto, group):
        return ""
    names = sorted({port.name or "unnamed" for port in group.ports if port.proto == proto})
    if not names:
        return f"it has no {PROTOCOL_NAMES.get(proto, proto)} port"
    return f"its ports are named {', '.join(names)}, the frontend's {frontend.name}"


def choose(
    found: Sequence[Backend], consumer: Consumer, unreachable: frozenset[str] = frozenset()
) -> list[Verdict]:
    """A verdict for each candidate, in their order.

    Clusters in ``unreachable`` are left out as long as that leaves anything.
    """
    known = [backend for backend in found if consumer.is_global or backend.local]
    verdicts = _choose(known, consumer, unreachable)
    if unreachable and not any(verdict.weight for verdict in verdicts):
        verdicts = _choose(known, consumer, frozenset())
    return verdicts


class _Pool:
    """The candidates still in the running, and why the others are not."""

    def __init__(self, members: Sequence[Backend]) -> None:
        self.members = list(members)
        self.why: dict[Backend, str] = {}

    def keep(self, wanted: Callable[[Backend], bool], why: str) -> None:
        kept = [backend for backend in self.members if wanted(backend)]
        if len(kept) < len(self.members):
            self.why |= dict.fromkeys(set(self.members).difference(kept), why)
            self.members = kept


def _choose(
    found: Sequence[Backend], consumer: Consumer, unreachable: frozenset[str]
) -> list[Verdict]:
    policy = consumer.policy
    pool = _Pool(found)
    pool.keep(lambda backend: backend.condition is not Condition.NOT_READY, NOT_READY)
    pool.keep(lambda backend: not consumer.only_here or backend.here, NOT_HERE)
    pool.keep(lambda backend: policy.weight(_side(backend)) > 0, DRAINED)
    pool.keep(lambda backend: policy.tier(_side(backend)) is not None, NO_TIER)
    pool.keep(lambda backend: backend.cluster not in unreachable, UNREACHABLE)
    healthy = list(pool.members)
    _by_affinity(pool, consumer.affinity)
    _by_condition(pool)
    _by_failover(pool, policy)
    weights = _equal(pool.members) if policy is PLAIN else _weights(pool, consumer, found, healthy)
    return [_verdict(backend, weights.get(backend, 0), pool) for backend in found]


def _verdict(backend: Backend, weight: int, pool: _Pool) -> Verdict:
    return Verdict(backend, weight, USED if weight else pool.why.get(backend, DRAINED))


def _side(backend: Backend) -> str:
    """The cluster's name as a policy writes it."""
    return LOCAL if backend.local else backend.cluster


def _by_affinity(pool: _Pool, affinity: str) -> None:
    """Contract kvstore 6.3: only an active local backend holds remote ones back, but a
    terminating remote one holds local ones back."""
    locals_ = [backend for backend in pool.members if backend.local]
    remotes = [backend for backend in pool.members if not backend.local]
    if affinity == "local" and any(b.condition is Condition.ACTIVE for b in locals_):
        pool.keep(lambda backend: backend.local, HELD_BACK_LOCAL)
    if affinity == "remote" and remotes:
        pool.keep(lambda backend: not backend.local, HELD_BACK_REMOTE)


def _by_condition(pool: _Pool) -> None:
    """Terminating ones serve only when nothing else is left (contract datapath 3.9)."""
    if any(backend.condition is Condition.ACTIVE for backend in pool.members):
        pool.keep(lambda backend: backend.condition is Condition.ACTIVE, TERMINATING)


def _by_failover(pool: _Pool, policy: Policy) -> None:
    if policy.failover is None:
        return
    tiers = [tier for backend in pool.members if (tier := policy.tier(_side(backend))) is not None]
    if tiers:
        first = min(tiers)
        pool.keep(lambda backend: policy.tier(_side(backend)) == first, LATER_TIER)


def _equal(members: Sequence[Backend]) -> Mapping[Backend, int]:
    return dict.fromkeys(members, 1)


def _weights(
    pool: _Pool, consumer: Consumer, found: Sequence[Backend], healthy: Sequence[Backend]
) -> Mapping[Backend, int]:
    """Whole numbers in proportion to each backend's share."""
    shares = _shares(pool.members, consumer.policy)
    local = _local_share(pool.members, consumer.policy, found)
    if local is not None:
        shares = _spill(pool, consumer, healthy, local)
    scale = lcm(*(share.denominator for share in shares.values()))
    return {backend: int(share * scale) for backend, share in shares.items() if share}


def _shares(members: Sequence[Backend], policy: Policy) -> dict[Backend, Fraction]:
    """Each cluster's weight, divided equally among its backends; they add up to 1."""
    sizes: dict[str, int] = {}
    for backend in members:
        sizes[_side(backend)] = sizes.get(_side(backend), 0) + 1
    if policy.weights is None:
        return dict.fromkeys(members, Fraction(1, max(len(members), 1)))
    total = sum(policy.weight(side) for side in sizes)
    return {
        backend: Fraction(policy.weight(_side(backend)), total * sizes[_side(backend)])
        for backend in members
    }


def _local_share(
    members: Sequence[Backend], policy: Policy, found: Sequence[Backend]
) -> Fraction | None:
    """The part that stays local by min-local; None when the rule has nothing to say."""
    healthy = sum(backend.local for backend in members)
    if policy.min_local is None or not healthy:
        return None
    known = sum(backend.local for backend in found)
    return min(Fraction(healthy, policy.min_local.needed(known)), Fraction(1))


def _spill(
    pool: _Pool, consumer: Consumer, healthy: Sequence[Backend], local: Fraction
) -> dict[Backend, Fraction]:
    """The local part stays; the rest goes where all would go if there were no local backend."""
    ours = [backend for backend in pool.members if backend.local]
    without = _Pool([backend for backend in healthy if not backend.local])
    _by_condition(without)
    _by_failover(without, consumer.policy)
    if local == 1 or not without.members:
        pool.why |= {b: ENOUGH_LOCAL for b in pool.members if not b.local}
        return dict.fromkeys(ours, Fraction(1, len(ours)))
    rest = _shares(without.members, consumer.policy)
    stay = dict.fromkeys(ours, local / len(ours))
    return stay | {backend: share * (1 - local) for backend, share in rest.items()}
