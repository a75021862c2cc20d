"""Services in full, for the own cluster's agents (the private tree)."""

from collections.abc import Iterable, Iterator

import msgspec

from clustermesh import addresses
from clustermesh.export import annotations
from clustermesh.export.services import (
    FAMILIES,
    affinity_seconds,
    cluster_ips,
    frontend_ports,
    is_exported,
    is_headless,
    is_ready,
    is_serving,
    slice_ports,
)
from clustermesh.local import Frontend, LocalBackend, LocalService, NamedPort, Scope
from clustermesh.sources.objects import Endpoint, EndpointSlice, Service


def to_local_service(
    service: Service, slices: Iterable[EndpointSlice], *, namespace_exports: bool
) -> LocalService:
    """The service with every endpoint its slices know, in whatever state."""
    spec, meta = service.spec, service.metadata
    return LocalService(
        namespace=meta.namespace,
        name=meta.name,
        type=spec.type,
        headless=is_headless(service),
        frontends=tuple(_frontends(service)),
        backends=_backends(slices),
        is_global=annotations.is_global(meta),
        shared=is_exported(service, namespace_exports=namespace_exports),
        affinity=annotations.affinity(meta),
        annotations=annotations.policies(meta),
        session_affinity_seconds=affinity_seconds(spec),
        internal_traffic_policy=spec.internal_traffic_policy or "Cluster",
        external_traffic_policy=spec.external_traffic_policy,
        publish_not_ready_addresses=spec.publish_not_ready_addresses,
        traffic_distribution=spec.traffic_distribution or "",
        load_balancer_source_ranges=spec.load_balancer_source_ranges,
    )


def _frontends(service: Service) -> Iterator[Frontend]:
    if service.spec.type == "ExternalName":
        return
    ports = frontend_ports(service)
    for text, scope in _places(service):
        ip = addresses.canonical(text)
        for name, port in ports.items() if ip else ():
            yield Frontend(ip, port.port, name, port.protocol, scope)
    if service.spec.type in ("NodePort", "LoadBalancer"):
        for each in service.spec.ports:
            if 0 < each.node_port <= 0xFFFF:
                protocol = each.protocol.upper()
                yield Frontend("", each.node_port, each.name, protocol, Scope.NODE_PORT)


def _places(service: Service) -> Iterator[tuple[str, Scope]]:
    yield from ((ip, Scope.CLUSTER_IP) for ip in cluster_ips(service))
    yield from ((ip, Scope.EXTERNAL_IP) for ip in service.spec.external_ips)
    if service.spec.type == "LoadBalancer":
        yield from (
            (ingress.ip, Scope.LOAD_BALANCER) for ingress in service.status.load_balancer.ingress
        )


def _backends(slices: Iterable[EndpointSlice]) -> tuple[LocalBackend, ...]:
    """One per address: of several copies the one in the best state, with the ports of its equals.

    A pod that moves between slices is in both for a moment, ready in one of them.
    """
    best: dict[str, LocalBackend] = {}
    for slice_ in slices:
        if slice_.address_type not in FAMILIES:
            continue
        ports = tuple(
            NamedPort(name, port.protocol, port.port) for name, port in slice_ports(slice_).items()
        )
        for endpoint in slice_.endpoints or ():
            for text in endpoint.addresses:
                ip = addresses.canonical(text)
                if ip:
                    new = _backend(ip, ports, endpoint)
                    best[ip] = _better(best[ip], new) if ip in best else new
    return tuple(best[ip] for ip in sorted(best, key=_numerically))


def _backend(ip: str, ports: tuple[NamedPort, ...], endpoint: Endpoint) -> LocalBackend:
    return LocalBackend(
        address=ip,
        ports=ports,
        ready=is_ready(endpoint),
        serving=is_serving(endpoint),
        terminating=endpoint.conditions.terminating is True,
        node=endpoint.node_name,
        zone=endpoint.zone,
        zone_hints=tuple(zone.name for zone in endpoint.hints.for_zones),
        hostname=endpoint.hostname,
    )


def _better(old: LocalBackend, new: LocalBackend) -> LocalBackend:
    if _state(new) != _state(old):
        return max(old, new, key=_state)
    merged = {port.name: port for port in (*old.ports, *new.ports)}
    return msgspec.structs.replace(new, ports=tuple(merged[name] for name in sorted(merged)))


def _state(backend: LocalBackend) -> tuple[bool, bool, bool]:
    return backend.ready, backend.serving, not backend.terminating


def _numerically(ip: str) -> tuple[bool, bytes]:
    return ":" in ip, addresses.packed(ip)
