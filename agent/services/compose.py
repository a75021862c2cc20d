"""From verdicts about backends to the program of a frontend: slots, counters, flags, table."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from agent.services.merge import Backend, Verdict
from agent.services.offers import PROTOCOLS, Condition
from agent.services.program import Place, Program, selection, shares
from agent.services.table import quotas, table
from bpf.layout_lb import MAX_AFFINITY_TIMEOUT, ServiceFlag
from clustermesh.addresses import packed
from clustermesh.local import Frontend, LocalService, Scope

MOST_SLOTS = 0xFFFF
"""Slot numbers have 16 bits."""


def frontends(service: LocalService) -> dict[Place, Frontend]:
    """Where a service is reached. Headless services, and scopes not served yet, have no place."""
    found = {}
    for frontend in service.frontends:
        address, proto = packed(frontend.address), PROTOCOLS.get(frontend.protocol, 0)
        if frontend.scope == Scope.CLUSTER_IP and address and proto and frontend.port:
            found[Place(address, frontend.port, proto)] = frontend
    return found


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
        flags=_flags(service),
        timeout=min(service.session_affinity_seconds, MAX_AFFINITY_TIMEOUT),
        shares=shares({n: q for n, q in zip(chosen.ids, chosen.quotas, strict=True) if q}),
        slots=len(backends),
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


def _flags(service: LocalService) -> int:
    flags = ServiceFlag(0)
    if service.session_affinity_seconds:
        flags |= ServiceFlag.SESSION_AFFINITY
    if service.internal_traffic_policy == "Local":
        flags |= ServiceFlag.INT_LOCAL
    return int(flags)
