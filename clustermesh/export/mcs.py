"""Exported services of the Multi-Cluster Services API (contract kvstore 2.6, 6.4)."""

import base64
import hashlib
from datetime import UTC, datetime

from clustermesh import addresses
from clustermesh.export.services import affinity_seconds, cluster_ips
from clustermesh.model import (
    OMITTED,
    AffinityConfig,
    ClientIP,
    ExportedPort,
    ServiceExport,
)
from clustermesh.sources import objects


def derived_name(namespace: str, name: str) -> str:
    """The name of the Service that stands for an imported one (contract kvstore 6.4)."""
    digest = hashlib.sha256(f"{namespace}/{name}".encode()).digest()
    return "derived-" + base64.b32hexencode(digest).decode().lower()[:10]


def created(export: objects.ServiceExport) -> str:
    """When the export was made, in UTC and seconds; empty when it does not say."""
    try:
        at = datetime.fromisoformat(export.metadata.creation_timestamp)
    except ValueError:
        return ""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if at.tzinfo else ""


def to_service_export(
    export: objects.ServiceExport, service: objects.Service, *, cluster: str
) -> ServiceExport:
    """What other clusters are told of an exported service."""
    spec = service.spec
    return ServiceExport(
        cluster=cluster,
        name=export.metadata.name,
        namespace=export.metadata.namespace,
        annotations=export.spec.exported_annotations or OMITTED,
        labels=export.spec.exported_labels or OMITTED,
        export_creation_timestamp=created(export),
        ports=tuple(
            ExportedPort(
                name=port.name,
                protocol=port.protocol,
                app_protocol=port.app_protocol or None,
                port=port.port,
            )
            for port in spec.ports
        ),
        type="Headless" if spec.cluster_ip.lower() == "none" else "ClusterSetIP",
        session_affinity=spec.session_affinity,
        session_affinity_config=_affinity(spec),
        ip_families=spec.ip_families or _families(service),
        internal_traffic_policy=spec.internal_traffic_policy or _traffic_policy(spec),
        traffic_distribution=spec.traffic_distribution,
    )


# What the API server would have filled in, for objects that never met one.


def _affinity(spec: objects.ServiceSpec) -> AffinityConfig | None:
    config = spec.session_affinity_config
    told = config.client_ip.timeout_seconds if config and config.client_ip else None
    seconds = told if told is not None else affinity_seconds(spec) or None
    return None if seconds is None else AffinityConfig(ClientIP(seconds))


def _families(service: objects.Service) -> tuple[str, ...]:
    if service.spec.type == "ExternalName":
        return ()
    told = (f"IPv{addresses.family(ip)}" for ip in cluster_ips(service))
    return tuple(dict.fromkeys(told)) or ("IPv4",)


def _traffic_policy(spec: objects.ServiceSpec) -> str | None:
    return None if spec.type == "ExternalName" else "Cluster"
