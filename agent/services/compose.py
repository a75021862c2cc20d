"""From verdicts about backends to the program of a frontend: slots, counters, flags, table."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from agent.services.merge import Backend, Verdict
from agent.services.offers import PROTOCOLS, Condition
from agent.services.program import Place, Program, Range, selection, shares
from agent.services.table import quotas, table
from bpf.layout_lb import MAX_AFFINITY_TIMEOUT, ServiceFlag
from clustermesh.addresses import packed, prefix
from clustermesh.local import Frontend, LocalService, Scope

EXTERNAL: Final = 0
INTERNAL: Final = 1
"""Scopes of a frontend (contract datapath 1.3): one for all clients, or one for each kind."""

MOST_SLOTS = 0xFFFF
"""Slot numbers have 16 bits."""


SCOPE_FLAGS: Final[Mapping[str, ServiceFlag]] = {
    Scope.CLUSTER_IP: ServiceFlag(0),
    Scope.EXTERNAL_IP: ServiceFlag.EXTERNAL_IP | ServiceFlag.ROUTABLE,
    Scope.LOAD_BALANCER: ServiceFlag.LOAD_BALANCER | ServiceFlag.ROUTABLE,
    Scope.NODE_PORT: ServiceFlag.NODE_PORT,
}
"""Contract datapath 1.3. A node port's one entry is not routable: it stands for every node's."""


def frontends(service: LocalService, *, outside: bool = False) -> dict[Place, Frontend]:
    """Where a service is reached; with ``outside`` also at the addresses that are meant for clients
    outside of the cluster. Headless services have no place.

    With externalTrafficPolicy Local there are two of each address: for clients from outside, and
    for those inside.
    """
    found = {}
    for frontend in service.frontends:
        proto = PROTOCOLS.get(frontend.protocol, 0)
        if not proto or not frontend.port or frontend.scope not in SCOPE_FLAGS:
            continue
        if frontend.scope != Scope.CLUSTER_IP and not outside:
            continue
        for address in _addresses(service, frontend):
            for scope in _scopes(service, frontend):
                found[Place(address, frontend.port, proto, scope)] = frontend
    return found


def only_here(service: LocalService, frontend: Frontend, scope: int) -> bool:
    """Whether a traffic policy leaves clients of this kind the endpoints of their node only.

    The internal policy is one for the service's own address: who asks in the cluster for an
    address that is meant for outside gets any backend, as Kubernetes has it.
    """
    if frontend.scope == Scope.CLUSTER_IP:
        return service.internal_traffic_policy == "Local"
    return scope == EXTERNAL and service.external_traffic_policy == "Local"


def _scopes(service: LocalService, frontend: Frontend) -> tuple[int, ...]:
    return (EXTERNAL, INTERNAL) if _parted(service, frontend) else (EXTERNAL,)


def _parted(service: LocalService, frontend: Frontend) -> bool:
    return service.external_traffic_policy == "Local" and frontend.scope != Scope.CLUSTER_IP


def _addresses(service: LocalService, frontend: Frontend) -> Iterable[bytes]:
    """A node port has the unspecified address of each family that the service has."""
    if frontend.scope != Scope.NODE_PORT:
        return filter(None, [packed(frontend.address)])
    own = (packed(it.address) for it in service.frontends if it.scope == Scope.CLUSTER_IP)
    return {bytes(len(address)) for address in own if address}


class Selection(NamedTuple):
    """Backends that are selected from, and how many entries of the table each has."""

    ids: tuple[int, ...]
    names: tuple[bytes, ...]
    quotas: tuple[int, ...]

    def table(self) -> bytes:
        """The selection table for the map (contract datapath 1.8)."""
        return selection(self.ids, table(self.names, self.quotas))


def compose(
    number: int,
    service: LocalService,
    frontend: Frontend,
    verdicts: Sequence[Verdict],
    id_of: Callable[[Backend], int],
    size: int,
) -> tuple[Program, Selection]:
    """The program of a frontend with service id ``number``; its table has ``size`` entries.

    Slots are in the order of ids, so that one that stays is not written again. Backends that are
    ready but not selected follow the selected ones, then those that are terminating: both keep
    the connections they have (contract datapath 1.3).
    """
    used = [(verdict, id_of(verdict.backend)) for verdict in verdicts if verdict.weight]
    spare = [v.backend for v in verdicts if not v.weight]
    standby = sorted(id_of(b) for b in spare if b.condition is Condition.ACTIVE)
    parked = sorted(id_of(b) for b in spare if b.condition is Condition.TERMINATING)
    backends = (*sorted(number for _, number in used), *standby, *parked)
    if len(backends) > MOST_SLOTS:
        raise ValueError(f"{len(backends)} backends, a frontend has room for {MOST_SLOTS}")
    chosen = _select(used, size)
    program = Program(
        id=number,
        backends=backends,
        count=len(used),
        parked=len(parked),
        flags=_flags(service, frontend),
        timeout=min(service.session_affinity_seconds, MAX_AFFINITY_TIMEOUT),
        shares=shares({n: q for n, q in zip(chosen.ids, chosen.quotas, strict=True) if q}),
        slots=len(backends),
        ranges=_ranges(service, frontend),
    )
    return program, chosen


def _select(used: Sequence[tuple[Verdict, int]], size: int) -> Selection:
    weights = [verdict.weight for verdict, _ in used]
    parts = tuple(quotas(weights, size)) if used else ()
    return Selection(tuple(number for _, number in used), _names(used), parts)


def _names(used: Sequence[tuple[Verdict, int]]) -> tuple[bytes, ...]:
    """What places a backend in a table: its address; where that is not enough, its port, too.

    Without ports the ports of a service share one computation. Verdicts come sorted by both.
    """
    backends = [verdict.backend for verdict, _ in used]
    addresses = [backend.address for backend in backends]
    if len(set(addresses)) == len(addresses):
        return tuple(addresses)
    return tuple(backend.address + backend.port.to_bytes(2, "big") for backend in backends)


def guarded(service: LocalService, frontend: Frontend) -> bool:
    """Whether the frontend serves clients of the service's source ranges only."""
    return frontend.scope == Scope.LOAD_BALANCER and bool(service.load_balancer_source_ranges)


def _ranges(service: LocalService, frontend: Frontend) -> tuple[Range, ...]:
    """Clients of the frontend's family, if not all are welcome. One that has none serves nobody."""
    if not guarded(service, frontend):
        return ()
    read = (prefix(text.strip()) for text in service.load_balancer_source_ranges)
    found = {(bits, packed(address)) for address, bits in read if address}
    size = len(packed(frontend.address))
    return tuple(sorted(it for it in found if len(it[1]) == size))


def _flags(service: LocalService, frontend: Frontend) -> int:
    flags = SCOPE_FLAGS[frontend.scope]
    if guarded(service, frontend):
        flags |= ServiceFlag.SOURCE_RANGE
    if service.session_affinity_seconds:
        flags |= ServiceFlag.SESSION_AFFINITY
    if service.internal_traffic_policy == "Local" and frontend.scope == Scope.CLUSTER_IP:
        flags |= ServiceFlag.INT_LOCAL
    if _parted(service, frontend):
        flags |= ServiceFlag.EXT_LOCAL | ServiceFlag.TWO_SCOPES
    return int(flags)
