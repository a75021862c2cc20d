"""One service out of what several clusters export under its name: the oldest export decides.

Contract kvstore 2.6 and 6.4, and the rules of the Multi-Cluster Services API where these say
nothing: ports are united, address families intersected, all else is as the oldest export has it.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from clustermesh.model import AffinityConfig, ExportedPort, ServiceExport

NO_CONFLICTS: Final = "NoConflicts"
HEADLESS: Final = "Headless"


class Conflict(msgspec.Struct, frozen=True):
    """Clusters disagree: ``reason`` is a word of the API, ``message`` all sentences about it."""

    reason: str = NO_CONFLICTS
    message: str = ""


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """What the clusters' exports of one name amount to; ``clusters`` export it, in order."""

    clusters: tuple[str, ...]
    type: str
    ports: tuple[ExportedPort, ...]
    session_affinity: str
    session_affinity_config: AffinityConfig | None
    ip_families: tuple[str, ...]
    internal_traffic_policy: str | None
    traffic_distribution: str | None
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    conflict: Conflict


class _Aspect(msgspec.Struct, frozen=True):
    """Something that all exports of a name should agree on."""

    name: str
    reason: str
    of: Callable[[ServiceExport], object]


_ASPECTS: Final = (
    _Aspect("type", "TypeConflict", lambda export: export.type),
    _Aspect("sessionAffinity", "SessionAffinityConflict", lambda export: export.session_affinity),
    _Aspect(
        "sessionAffinityConfig",
        "SessionAffinityConfigConflict",
        lambda export: _seconds(export.session_affinity_config),
    ),
    _Aspect("annotations", "AnnotationsConflict", lambda export: dict(export.annotations)),
    _Aspect("labels", "LabelsConflict", lambda export: dict(export.labels)),
    _Aspect(
        "internalTrafficPolicy",
        "InternalTrafficPolicyConflict",
        lambda export: export.internal_traffic_policy or "Cluster",
    ),
    _Aspect(
        "trafficDistribution",
        "TrafficDistributionConflict",
        lambda export: export.traffic_distribution or "",
    ),
)


def resolve(exports: Collection[ServiceExport]) -> Resolved:
    """The service that these exports of one name stand for, one or more, each of its cluster."""
    ordered = sorted(exports, key=lambda each: (each.export_creation_timestamp, each.cluster))
    oldest = ordered[0]
    ports, port_conflicts = _ports(ordered)
    families, family_conflicts = _families(ordered)
    conflicts = [*port_conflicts, *family_conflicts, *_disagreements(ordered)]
    return Resolved(
        clusters=tuple(sorted(each.cluster for each in ordered)),
        type=oldest.type,
        ports=ports,
        session_affinity=oldest.session_affinity,
        session_affinity_config=oldest.session_affinity_config,
        ip_families=families,
        internal_traffic_policy=oldest.internal_traffic_policy,
        traffic_distribution=oldest.traffic_distribution,
        labels=oldest.labels,
        annotations=oldest.annotations,
        conflict=_first(conflicts),
    )


def _first(conflicts: Sequence[Conflict]) -> Conflict:
    """One condition has room for one reason; its message tells of the others, too."""
    if not conflicts:
        return Conflict()
    return Conflict(conflicts[0].reason, " ".join(each.message for each in conflicts))


def _ports(ordered: Sequence[ServiceExport]) -> tuple[tuple[ExportedPort, ...], list[Conflict]]:
    """All ports; of two with one name, or with one number and protocol, the older is used."""
    by_place: dict[tuple[str, int], ExportedPort] = {}
    by_name: dict[str, ExportedPort] = {}
    for export in ordered:
        for port in export.ports or ():
            place = (port.protocol or "TCP", port.port)
            if place not in by_place and port.name not in by_name:
                by_place[place] = by_name[port.name] = port
    united = tuple(by_place.values())
    differing = [each.cluster for each in ordered if set(each.ports or ()) != set(united)]
    if not differing:
        return united, []
    used = ", ".join(map(_spelled, united))
    return united, [
        Conflict(
            "PortConflict",
            f"ports: {', '.join(differing)} of {len(ordered)} clusters export others than the"
            f" ports in use, {used or 'none'}; of two with one name or number, the one of the"
            f" oldest export is used, beginning with {ordered[0].cluster}.",
        )
    ]


def _spelled(port: ExportedPort) -> str:
    return f"{port.name or '(unnamed)'} {port.port}/{port.protocol or 'TCP'}"


def _families(ordered: Iterable[ServiceExport]) -> tuple[tuple[str, ...], list[Conflict]]:
    """The families that all have; a cluster that has none of them is passed over.

    Clusters of releases before 1.18 do not say which they have (contract kvstore 2.6).
    """
    common: tuple[str, ...] = ()
    strangers = []
    for export in ordered:
        if not export.ip_families:
            continue
        both = tuple(each for each in common if each in export.ip_families)
        if not common:
            common = tuple(export.ip_families)
        elif both:
            common = both
        else:
            strangers.append(export.cluster)
    if not strangers:
        return common, []
    return common, [
        Conflict(
            "IPFamilyConflict",
            f"ipFamilies: {', '.join(strangers)} has none of {', '.join(common)}, which the"
            " older exports share.",
        )
    ]


def _disagreements(ordered: Sequence[ServiceExport]) -> Iterable[Conflict]:
    oldest = ordered[0]
    for aspect in _ASPECTS:
        used = aspect.of(oldest)
        others = [each.cluster for each in ordered if aspect.of(each) != used]
        if others:
            yield Conflict(
                aspect.reason,
                f"{aspect.name}: {', '.join(others)} of {len(ordered)} clusters disagree; {used!r}"
                f" of the oldest export, in {oldest.cluster}, is used.",
            )


def _seconds(config: AffinityConfig | None) -> int | None:
    return config.client_ip.timeout_seconds if config and config.client_ip else None
