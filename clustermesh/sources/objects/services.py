"""Services, their endpoints, and their export."""

import msgspec

from clustermesh.sources.objects.base import Meta, Wire


class ServicePort(Wire, frozen=True, gc=False):
    """A port of a Service. The target port is the EndpointSlice's business."""

    name: str = ""
    protocol: str = "TCP"
    port: int = 0
    node_port: int = 0
    app_protocol: str = ""


class ClientIPConfig(Wire, frozen=True, gc=False):
    """Seconds that a client stays with its backend."""

    timeout_seconds: int | None = None


class SessionAffinityConfig(Wire, frozen=True, gc=False):
    """Configuration of session affinity."""

    client_ip: ClientIPConfig | None = msgspec.field(name="clientIP", default=None)


class ServiceSpec(Wire, frozen=True, gc=False):
    """What a Service asks for. ``selector`` None: absent."""

    type: str = "ClusterIP"
    cluster_ip: str = msgspec.field(name="clusterIP", default="")
    cluster_ips: tuple[str, ...] = msgspec.field(name="clusterIPs", default=())
    external_ips: tuple[str, ...] = msgspec.field(name="externalIPs", default=())
    external_name: str = ""
    ports: tuple[ServicePort, ...] = ()
    selector: dict[str, str] | None = None
    session_affinity: str = "None"
    session_affinity_config: SessionAffinityConfig | None = None
    ip_families: tuple[str, ...] = ()
    internal_traffic_policy: str | None = None
    external_traffic_policy: str = "Cluster"
    traffic_distribution: str | None = None
    publish_not_ready_addresses: bool = False
    load_balancer_ip: str = msgspec.field(name="loadBalancerIP", default="")
    load_balancer_source_ranges: tuple[str, ...] = ()


class Ingress(Wire, frozen=True, gc=False):
    """An address that a load balancer gave."""

    ip: str = ""
    hostname: str = ""


class LoadBalancer(Wire, frozen=True, gc=False):
    """What a load balancer gave."""

    ingress: tuple[Ingress, ...] = ()


class ServiceStatus(Wire, frozen=True, gc=False):
    """State of a Service."""

    load_balancer: LoadBalancer = LoadBalancer()


class Service(Wire, frozen=True, gc=False):
    """v1 Service."""

    metadata: Meta
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()


class Conditions(Wire, frozen=True, gc=False):
    """Conditions of an endpoint; None is unknown."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class ZoneName(Wire, frozen=True, gc=False):
    """A zone by name."""

    name: str = ""


class Hints(Wire, frozen=True, gc=False):
    """Whom an endpoint should serve."""

    for_zones: tuple[ZoneName, ...] = ()


class Endpoint(Wire, frozen=True, gc=False):
    """One endpoint of an EndpointSlice."""

    addresses: tuple[str, ...] = ()
    conditions: Conditions = Conditions()
    hostname: str = ""
    node_name: str = ""
    zone: str = ""
    hints: Hints = Hints()


class EndpointPort(Wire, frozen=True, gc=False):
    """One port of an EndpointSlice; ``port`` None means all ports."""

    name: str = ""
    protocol: str = "TCP"
    port: int | None = None
    app_protocol: str = ""


class EndpointSlice(Wire, frozen=True, gc=False):
    """discovery.k8s.io/v1 EndpointSlice."""

    metadata: Meta
    address_type: str = "IPv4"
    endpoints: tuple[Endpoint, ...] | None = ()
    ports: tuple[EndpointPort, ...] | None = ()


class ServiceExportSpec(Wire, frozen=True, gc=False):
    """What travels with an exported service."""

    exported_labels: dict[str, str] = msgspec.field(default_factory=dict)
    exported_annotations: dict[str, str] = msgspec.field(default_factory=dict)


class Condition(Wire, frozen=True, gc=False):
    """metav1.Condition."""

    type: str
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None
    observed_generation: int = 0


class ServiceExportStatus(Wire, frozen=True, gc=False):
    """What is said of an export."""

    conditions: tuple[Condition, ...] = ()


class ServiceExport(Wire, frozen=True, gc=False):
    """multicluster.x-k8s.io/v1alpha1 (and v1beta1) ServiceExport."""

    metadata: Meta
    spec: ServiceExportSpec = ServiceExportSpec()
    status: ServiceExportStatus = ServiceExportStatus()


class ServiceImportSpec(Wire, frozen=True, gc=False):
    """The service that the clusters of a mesh have in common."""

    type: str = ""
    ports: tuple[ServicePort, ...] = ()
    ips: tuple[str, ...] = ()
    session_affinity: str = "None"
    session_affinity_config: SessionAffinityConfig | None = None
    ip_families: tuple[str, ...] = ()
    internal_traffic_policy: str | None = None
    traffic_distribution: str | None = None


class ExportingCluster(Wire, frozen=True, gc=False):
    """A cluster that exports a service."""

    cluster: str = ""


class ServiceImportStatus(Wire, frozen=True, gc=False):
    """Who exports it."""

    clusters: tuple[ExportingCluster, ...] = ()


class ServiceImport(Wire, frozen=True, gc=False):
    """multicluster.x-k8s.io/v1alpha1 (and v1beta1) ServiceImport."""

    metadata: Meta
    spec: ServiceImportSpec = ServiceImportSpec()
    status: ServiceImportStatus = ServiceImportStatus()
