"""One comparison of all that was read with all that was found, and what cannot be told [pure].

What a cluster that cannot be read now has in the maps is taken as it is: an agent keeps the facts
of a cluster whose etcd it has lost. It is named, and nothing of it is called a difference.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Final, NamedTuple

from agent.audit import balance, compare, ways
from agent.audit.addresses import Here, address_maps, ipcache_key, overlapping
from agent.audit.balance import Balance
from agent.audit.compare import Drift
from agent.audit.frontends import At, Circumstances, Frontends, frontends
from agent.audit.observed import MATCHES, ServiceMaps, Snapshot, service_maps
from agent.audit.reading import OWN_SERVICES, Told
from agent.audit.sharing import Endpoint
from agent.audit.ways import Present
from clustermesh.audit import EXTRA
from clustermesh.keys import FIRST_UNRESERVED, Kind, cluster_of

MOST_NAMED: Final = 100
"""Things that cannot be told, in one report."""

Excused = Callable[[int], bool]


class Case(NamedTuple):
    """All that a judgement is made of."""

    here: Here
    given: Circumstances
    own: Told
    remotes: Sequence[Told]
    absent: Mapping[str, str]
    """Clusters that cannot be read or believed now, and why."""
    names: Mapping[int, str]
    """Of clusters whose id is known."""
    found: Snapshot
    table_size: int
    thorough: bool = True
    routes: Present | None = None
    """Where prefixes lead; None: the network is not known yet."""
    host_routes: int = 4096
    """Room for routes to single addresses."""


class Judgement(NamedTuple):
    """Every difference, and what could not be told."""

    drifts: list[Drift]
    unaudited: tuple[str, ...]


def judge(case: Case) -> Judgement:
    """Compute what must be, and compare."""
    held = overlapping(case.here, [case.own, *case.remotes])
    remotes = [told for told in case.remotes if told.cluster not in held]
    excused = _excused(case)
    drifts = [*_addresses(case, remotes, excused), *_routes(case, remotes)]
    sides = {family: service_maps(case.found, family) for family in balance.LENGTHS}
    present = {at: it for maps in sides.values() for at, it in _present(case, maps, excused)}
    wanted = frontends(case.own, remotes, case.given, present)
    drifts += [*_services(case, sides, wanted)]
    return Judgement(drifts, tuple(_unaudited(case, wanted))[:MOST_NAMED])


def _excused(case: Case) -> Excused:
    """Whether an entry that is there because of a cluster id may stay unexplained."""
    told = {it.cluster_id for it in (case.own, *case.remotes)}
    doubtful = {
        it.cluster_id
        for it in (case.own, *case.remotes)
        if any(kind == Kind.NODES for kind, _ in it.bad)
    }

    def excused(cluster_id: int) -> bool:
        if cluster_id == 0:
            return bool(doubtful or case.absent)
        return cluster_id in doubtful or (bool(case.absent) and cluster_id not in told)

    return excused


def _addresses(case: Case, remotes: Sequence[Told], excused: Excused) -> Iterator[Drift]:
    mesh = (case.own, *remotes)
    unreadable = {
        ipcache_key(name if "/" in name else f"{name}/{128 if ':' in name else 32}")
        for told in mesh
        for kind, name in told.bad
        if kind == Kind.IPS
    }
    trusted = {key: _number(value[:4]) for key, value in case.found["nodes"].items()}
    for member, wanted in zip(
        ("ipcache", "tunnel", "nodes"), address_maps(case.here, mesh), strict=True
    ):
        for drift in compare.entries(member, wanted, case.found[member]):
            has = case.found[member].get(drift.key, b"")
            owner = _owner(case, member, drift.key, has, trusted) if has else None
            if drift.key not in unreadable and (owner is None or not excused(owner)):
                yield drift


def _routes(case: Case, remotes: Sequence[Told]) -> Iterator[Drift]:
    """A cluster that cannot be told keeps its routes, and may keep single ones from being."""
    mesh = (case.own, *case.remotes)
    blind = any(kind in (Kind.NODES, Kind.IPS) for told in mesh for kind, _ in told.bad)
    if case.routes is None or blind:
        return
    found = ways.differences(case.here, case.own, remotes, case.routes, most=case.host_routes)
    for drift in found:
        if not (case.absent and drift.what.kind == EXTRA):
            yield drift


def _owner(case: Case, member: str, key: bytes, value: bytes, trusted: Mapping[bytes, int]) -> int:
    """The cluster that an entry is there for; 0 when it does not say."""
    if member == "nodes":
        return _number(value[:4])
    if member == "tunnel":
        return trusted.get(value[:4], 0)
    identity = _number(value[:4])
    if identity >= FIRST_UNRESERVED:
        return cluster_of(identity, case.here.max_clusters)
    return trusted.get(value[4:8]) or trusted.get(key[8:12], 0)


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, "little")


def _present(
    case: Case, maps: ServiceMaps, excused: Excused
) -> Iterator[tuple[At, list[Endpoint]]]:
    """By frontend: endpoints of clusters that could not be read."""
    for at, slots in maps.slots.items():
        found = (maps.backends.get(slot.backend) for slot in slots.values())
        kept = [
            Endpoint(
                it.address, it.port, it.proto, it.cluster_id, case.names.get(it.cluster_id, "")
            )
            for it in found
            if it is not None and it.cluster_id and excused(it.cluster_id)
        ]
        if kept:
            yield at, kept


def _services(case: Case, sides: Mapping[str, ServiceMaps], wanted: Frontends) -> Iterator[Drift]:
    """A frontend that nobody wants may be that of an own service that cannot be read."""
    blind = any(kind == OWN_SERVICES for kind, _ in case.own.bad)
    balances = [Balance(it, maps, wanted, size=case.table_size) for it, maps in sides.items()]
    differences = [each.differences(thorough=case.thorough) for each in balances]
    strange = balance.strange_matches(case.found[MATCHES], balances)
    for drift in chain(*differences, strange):
        if not (blind and drift.what.kind == EXTRA and not drift.what.service):
            yield drift


def _unaudited(case: Case, wanted: Frontends) -> Iterator[str]:
    for cluster, reason in sorted(case.absent.items()):
        yield f"cluster {cluster}: {reason}"
    for told in (case.own, *case.remotes):
        for (kind, name), reason in sorted(told.bad.items()):
            yield f"{kind} {name} of {told.cluster} cannot be read: {reason}"
    for name, reason in sorted(wanted.unknown.items()):
        yield f"service {name}: {reason}"
