"""Exports, services and slices for tests of the Multi-Cluster Services API."""

from clustermesh.model import ExportedPort, ServiceExport
from clustermesh.sources import objects

SPACE = "shop"


def export(cluster: str, created: str = "2026-11-20T10:00:00Z", **changes: object) -> ServiceExport:
    """What a cluster exports as shop/cart."""
    fields: dict[str, object] = {
        "cluster": cluster,
        "name": "cart",
        "namespace": SPACE,
        "export_creation_timestamp": created,
        "ports": (ExportedPort(name="http", protocol="TCP", port=80),),
        "type": "ClusterSetIP",
        "session_affinity": "None",
        "ip_families": ("IPv4",),
        "internal_traffic_policy": "Cluster",
    }
    return ServiceExport(**(fields | changes))  # type: ignore[arg-type]  # by name


def own_export(name: str = "cart", created: str = "2026-11-20T10:00:00Z") -> objects.ServiceExport:
    return objects.ServiceExport(
        objects.Meta(name=name, namespace=SPACE, creation_timestamp=created)
    )


def service(name: str = "cart", ip: str = "10.107.0.9", **labels: str) -> objects.Service:
    return objects.Service(
        objects.Meta(name=name, namespace=SPACE, labels=labels or None),
        objects.ServiceSpec(
            cluster_ip=ip, cluster_ips=(ip,), ports=(objects.ServicePort(name="http", port=80),)
        ),
    )


def slice_of(service_name: str, *ips: str, name: str = "") -> objects.EndpointSlice:
    return objects.EndpointSlice(
        objects.Meta(
            name=name or f"{service_name}-a",
            namespace=SPACE,
            labels={"kubernetes.io/service-name": service_name},
        ),
        endpoints=tuple(objects.Endpoint(addresses=(ip,)) for ip in ips),
        ports=(objects.EndpointPort(name="http", port=8080),),
    )
