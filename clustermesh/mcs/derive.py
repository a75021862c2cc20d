"""What should exist in this cluster for one exported name: an import, a Service, its endpoints."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from clustermesh.export.mcs import created, derived_name, to_service_export
from clustermesh.mcs import names
from clustermesh.mcs.resolve import HEADLESS, NO_CONFLICTS, Conflict, Resolved, resolve
from clustermesh.model import AffinityConfig, ServiceExport
from clustermesh.sources import objects
from clustermesh.sources.objects import Condition, EndpointSlice, Meta, Service, ServiceImport

SUFFIX: Final = 40  # characters of a slice's name that its copy keeps
LABEL: Final = 63  # characters of a label's value


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about one name.

    ``exports`` are those of other clusters, by cluster. ``meshed``: the namespace is there and
    takes part in the mesh. ``own`` is the ServiceExport here, with ``service`` and ``slices``.
    """

    cluster: str
    namespace: str
    name: str
    exports: Mapping[str, ServiceExport] = {}
    meshed: bool = True
    own: objects.ServiceExport | None = None
    service: Service | None = None
    slices: Sequence[EndpointSlice] = ()


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What should exist; ``conditions`` are for the status of the ServiceExport here.

    The import has no addresses: who gives one to the Service knows them.
    """

    service_import: ServiceImport | None = None
    derived: Service | None = None
    slices: tuple[EndpointSlice, ...] = ()
    conditions: tuple[Condition, ...] = ()
    conflict: Conflict = Conflict()


def wanted(facts: Facts) -> Wanted:
    """What should exist, from present facts alone."""
    fault = _fault(facts)
    exports = dict(facts.exports)
    if facts.own is not None and facts.service is not None and fault is None:
        exports[facts.cluster] = to_service_export(facts.own, facts.service, cluster=facts.cluster)
    if not exports or not facts.meshed:
        return Wanted(conditions=_conditions(facts, fault, Conflict()))
    resolved = resolve(exports.values())
    derived = _derived(facts, resolved)
    return Wanted(
        service_import=_import(facts, resolved),
        derived=derived,
        slices=tuple(_copies(facts, derived, resolved)) if facts.cluster in exports else (),
        conditions=_conditions(facts, fault, resolved.conflict),
        conflict=resolved.conflict,
    )


# --- what is said of the own export ------------------------------------------------------------


def _fault(facts: Facts) -> tuple[str, str] | None:
    """Why the own export is none, as reason and sentence."""
    if facts.own is None:
        return None
    if not facts.meshed:
        return "NamespaceNotGlobal", f"namespace {facts.namespace} takes no part in the mesh"
    if facts.service is None:
        return "NoService", f"there is no Service {facts.namespace}/{facts.name}"
    if not created(facts.own):
        return "Pending", "metadata.creationTimestamp: missing, expected an RFC 3339 time"
    return None


def _conditions(
    facts: Facts, fault: tuple[str, str] | None, conflict: Conflict
) -> tuple[Condition, ...]:
    if facts.own is None:
        return ()
    if fault is not None:
        reason, message = fault
        return (
            Condition("Valid", "False", reason, message),
            Condition("Ready", "False", "Pending", "not exported while it is not valid"),
        )
    clash = conflict.reason != NO_CONFLICTS
    return (
        Condition("Valid", "True", "Valid", "the service can be exported"),
        Condition("Ready", "True", "Ready", "the service is exported"),
        Condition(
            "Conflict",
            "True" if clash else "False",
            conflict.reason,
            conflict.message if clash else "all clusters that export it agree",
        ),
    )


# --- objects -----------------------------------------------------------------------------------


def _import(facts: Facts, resolved: Resolved) -> ServiceImport:
    annotations = dict(resolved.annotations)
    annotations[names.DERIVED] = derived_name(facts.namespace, facts.name)
    if resolved.ip_families:
        annotations[names.FAMILIES] = ",".join(resolved.ip_families)
    return ServiceImport(
        Meta(
            name=facts.name,
            namespace=facts.namespace,
            labels=dict(resolved.labels),
            annotations=annotations,
        ),
        objects.ServiceImportSpec(
            type=resolved.type,
            ports=_ports(resolved),
            session_affinity=resolved.session_affinity or "None",
            session_affinity_config=_affinity(resolved.session_affinity_config),
            ip_families=resolved.ip_families,
            internal_traffic_policy=resolved.internal_traffic_policy,
            traffic_distribution=resolved.traffic_distribution,
        ),
        objects.ServiceImportStatus(tuple(map(objects.ExportingCluster, resolved.clusters))),
    )


def _derived(facts: Facts, resolved: Resolved) -> Service:
    """The Service that the data path knows: global, and shared when this cluster exports it."""
    shared = "true" if facts.own is not None else "false"
    affine = resolved.session_affinity == "ClientIP"
    return Service(
        Meta(
            name=derived_name(facts.namespace, facts.name),
            namespace=facts.namespace,
            labels={
                **resolved.labels,
                names.SERVICE: facts.name,
                names.SOURCE: facts.cluster,
            },
            annotations={**resolved.annotations, names.GLOBAL: "true", names.SHARED: shared},
        ),
        objects.ServiceSpec(
            cluster_ip="None" if resolved.type == HEADLESS else "",
            ports=_ports(resolved),
            session_affinity="ClientIP" if affine else "None",
            session_affinity_config=(
                _affinity(resolved.session_affinity_config) if affine else None
            ),
            ip_families=resolved.ip_families,
            internal_traffic_policy=resolved.internal_traffic_policy,
            traffic_distribution=resolved.traffic_distribution,
        ),
    )


def _ports(resolved: Resolved) -> tuple[objects.ServicePort, ...]:
    return tuple(
        objects.ServicePort(
            name=port.name,
            protocol=port.protocol or "TCP",
            port=port.port,
            app_protocol=port.app_protocol or "",
        )
        for port in resolved.ports
    )


def _affinity(config: AffinityConfig | None) -> objects.SessionAffinityConfig | None:
    if config is None:
        return None
    client = config.client_ip
    return objects.SessionAffinityConfig(
        objects.ClientIPConfig(client.timeout_seconds) if client else None
    )


def _copies(facts: Facts, derived: Service, resolved: Resolved) -> Iterator[EndpointSlice]:
    """The endpoints here, once more under the derived name."""
    taken: set[str] = set()
    for slice_ in facts.slices:
        if slice_.address_type == "FQDN" or (
            resolved.ip_families and slice_.address_type not in resolved.ip_families
        ):
            continue
        of = slice_.metadata.name
        name = _copy_name(derived.metadata.name, facts.name, of)
        if name in taken:
            name = f"{name}-{hashlib.sha256(of.encode()).hexdigest()[:8]}"
        taken.add(name)
        labels = {
            **(derived.metadata.labels or {}),
            names.OF_SERVICE: derived.metadata.name,
            names.MANAGED_BY: names.COPIER,
        }
        if len(of) <= LABEL:
            labels[names.COPY_OF] = of
        meta = Meta(name=name, namespace=facts.namespace, labels=labels)
        yield EndpointSlice(meta, slice_.address_type, slice_.endpoints, slice_.ports)


def _copy_name(derived: str, service: str, slice_: str) -> str:
    suffix = slice_.removeprefix(service)[-SUFFIX:].lstrip("-.")
    return f"{derived}-{suffix}" if suffix else derived
