"""Services as other clusters see them (contract kvstore 2.5, 12.services)."""

from collections.abc import Iterable, Iterator

from clustermesh import addresses
from clustermesh.export import annotations
from clustermesh.model import OMITTED, OMITTED_ZONES, ClusterService, Port, PortsByName, Zone
from clustermesh.model import ZoneHint as Hint
from clustermesh.sources.objects import Endpoint, EndpointSlice, Service, ServiceSpec

FAMILIES = frozenset({"IPv4", "IPv6"})
PROTOCOLS = frozenset({"TCP", "UDP", "SCTP"})
NEVER_EXPORTED = frozenset({"kube-scheduler", "kube-controller-manager"})
DEFAULT_AFFINITY_SECONDS = 10800
"""What the API server fills in."""
LONGEST_AFFINITY_SECONDS = 86400
"""What it takes at most."""
OTHER_PROXY = "service.kubernetes.io/service-proxy-name"
HEADLESS = "service.kubernetes.io/headless"
SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
MIRRORED = "endpointslice-mesh-controller.cilium.io"
"""Slices that a mesh operator made from remote backends must not be counted again."""


def service_of(slice_: EndpointSlice) -> str:
    """The service that a slice belongs to; empty for a slice that is nobody's or a mirror."""
    labels = slice_.metadata.labels or {}
    return "" if labels.get(MANAGED_BY) == MIRRORED else labels.get(SERVICE_NAME, "")


def is_ours(service: Service) -> bool:
    """Whether the service is served by us rather than by another proxy."""
    return OTHER_PROXY not in (service.metadata.labels or {})


def is_headless(service: Service) -> bool:
    """Whether it has no address of its own."""
    told = (service.spec.cluster_ip, *service.spec.cluster_ips)
    none = any(ip.lower() == "none" for ip in told)
    return none or HEADLESS in (service.metadata.labels or {})


def is_exported(service: Service, *, namespace_exports: bool) -> bool:
    """Whether other clusters may use it (its slices permitting)."""
    return (
        namespace_exports
        and is_ours(service)
        and service.spec.type != "ExternalName"
        and service.metadata.name not in NEVER_EXPORTED
        and annotations.is_shared(service.metadata)
    )


def cluster_ips(service: Service) -> tuple[str, ...]:
    """Its own addresses, canonical; none for a headless or ExternalName one."""
    spec = service.spec
    if is_headless(service) or spec.type == "ExternalName":
        return ()
    told = spec.cluster_ips or (spec.cluster_ip,)
    return tuple(dict.fromkeys(ip for text in told if (ip := addresses.canonical(text))))


def to_cluster_service(
    service: Service, slices: Iterable[EndpointSlice], *, cluster: str, cluster_id: int
) -> ClusterService:
    """The service with the backends of its slices.

    An address in several slices has the ports of all; of two ports with one name, and of two host
    names or zones, the last slice's counts. Within a slice the first copy of an address counts.
    """
    backends: dict[str, PortsByName] = {}
    hostnames: dict[str, str] = {}
    zones: dict[str, Zone] = {}
    for slice_ in slices:
        ports = told_ports(slice_)
        for ip, endpoint in usable(slice_).items():
            known = backends.get(ip)
            backends[ip] = {**known, **ports} if known else ports
            if endpoint.hostname:
                hostnames[ip] = endpoint.hostname
            if endpoint.zone:
                zones[ip] = _zone(endpoint)
    meta = service.metadata
    frontends = {it.name: Port(it.protocol.upper(), it.port & 0xFFFF) for it in service.spec.ports}
    return ClusterService(
        cluster=cluster,
        namespace=meta.namespace,
        name=meta.name,
        frontends=dict.fromkeys(cluster_ips(service), frontends),
        backends=backends,
        hostnames=hostnames or OMITTED,
        zones=zones or OMITTED_ZONES,
        labels=meta.labels or {},
        selector=service.spec.selector or {},
        include_external=True,
        shared=True,
        cluster_id=cluster_id,
    )


def frontend_ports(service: Service) -> PortsByName:
    """Service ports by name."""
    return {
        port.name: Port(port.protocol.upper(), port.port)
        for port in service.spec.ports
        if 0 < port.port <= 0xFFFF
    }


def slice_ports(slice_: EndpointSlice) -> PortsByName:
    """Target ports by name that traffic can be sent to; a port without a number is none."""
    return {
        port.name: Port(port.protocol.upper(), port.port)
        for port in slice_.ports or ()
        if port.port is not None and 0 < port.port <= 0xFFFF and _is_known(port.protocol)
    }


def told_ports(slice_: EndpointSlice) -> PortsByName:
    """Target ports by name as the peer tells them: the API server lets any number pass, and what
    travels is its last 16 bits (contract kvstore 2.5: ``Port`` is a uint16)."""
    return {
        port.name: Port(port.protocol.upper(), port.port & 0xFFFF)
        for port in slice_.ports or ()
        if port.port is not None and _is_known(port.protocol)
    }


def usable(slice_: EndpointSlice) -> dict[str, Endpoint]:
    """Endpoints that are ready, or still serving while they end, by each canonical address."""
    found: dict[str, Endpoint] = {}
    if slice_.address_type not in FAMILIES:
        return found
    for endpoint in slice_.endpoints or ():
        if is_ready(endpoint) or is_serving(endpoint):
            for text in endpoint.addresses:
                ip = addresses.canonical(text)
                if ip:
                    found.setdefault(ip, endpoint)
    return found


def is_ready(endpoint: Endpoint) -> bool:
    """Unknown means ready, as Kubernetes defines it."""
    return endpoint.conditions.ready is not False


def is_serving(endpoint: Endpoint) -> bool:
    """Unknown means: as ready as it is."""
    serving = endpoint.conditions.serving
    return is_ready(endpoint) if serving is None else serving


def affinity_seconds(spec: ServiceSpec) -> int:
    """How long a client stays with its backend; 0 without session affinity. A manifest may say what
    no API server would take: then it counts as not said."""
    if spec.session_affinity != "ClientIP":
        return 0
    config = spec.session_affinity_config
    told = config.client_ip.timeout_seconds if config and config.client_ip else None
    return told if told and 0 < told <= LONGEST_AFFINITY_SECONDS else DEFAULT_AFFINITY_SECONDS


def mistakes(service: Service, slices: Iterable[EndpointSlice]) -> Iterator[str]:
    """What of a service cannot be published, one sentence each."""
    yield from annotations.mistakes(service.metadata)
    told = service.spec.cluster_ips or (service.spec.cluster_ip,)
    for text in told if not is_headless(service) else ():
        if text and not addresses.packed(text):
            yield f"spec.clusterIPs: {text!r} is not an IP address"
    for slice_ in slices:
        yield from _slice_mistakes(slice_)


def _slice_mistakes(slice_: EndpointSlice) -> Iterator[str]:
    name = slice_.metadata.name
    if slice_.address_type not in FAMILIES:
        yield f"EndpointSlice {name}: addressType {slice_.address_type} gives no backends"
        return
    for index, port in enumerate(slice_.ports or ()):
        if not _is_known(port.protocol):
            expected = "expected TCP, UDP or SCTP"
            yield f"EndpointSlice {name}: ports[{index}].protocol: {port.protocol!r}, {expected}"
    for index, endpoint in enumerate(slice_.endpoints or ()):
        for text in endpoint.addresses:
            if not addresses.packed(text):
                yield f"EndpointSlice {name}: endpoints[{index}]: {text!r} is not an IP address"


def _is_known(protocol: str) -> bool:
    return protocol.upper() in PROTOCOLS


def _zone(endpoint: Endpoint) -> Zone:
    """Where a backend is, and whom it should serve; hints without a zone are not told."""
    return Zone(endpoint.zone, tuple(Hint(zone.name) for zone in endpoint.hints.for_zones))
