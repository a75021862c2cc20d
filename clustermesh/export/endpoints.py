"""Addresses of endpoints and the identity behind each (contract kvstore 2.3, 12.endpoints)."""

from collections.abc import Iterable, Iterator

from clustermesh import addresses
from clustermesh.model import IPEntry
from clustermesh.sources import objects

FINISHED = frozenset({"Succeeded", "Failed"})


def from_cilium(endpoint: objects.CiliumEndpoint) -> Iterator[IPEntry]:
    """One entry per address of a CiliumEndpoint."""
    status, meta = endpoint.status, endpoint.metadata
    return _entries(
        status.networking,
        namespace=meta.namespace,
        pod=meta.name,
        identity=status.identity.id,
        key=status.encryption.key,
        service_account=status.service_account,
    )


def from_cilium_slice(slice_: objects.CiliumEndpointSlice) -> Iterator[IPEntry]:
    """One entry per address of every endpoint in a CiliumEndpointSlice."""
    for endpoint in slice_.endpoints:
        yield from _entries(
            endpoint.networking,
            namespace=slice_.namespace,
            pod=endpoint.name,
            identity=endpoint.id,
            key=endpoint.encryption.key,
            service_account=endpoint.service_account,
        )


def bad_addresses(networking: objects.Networking | None) -> Iterator[str]:
    """What in an endpoint's networking is no address, one sentence each."""
    for index, pair in enumerate(networking.addressing if networking else ()):
        for name, ip in (("ipv4", pair.ipv4), ("ipv6", pair.ipv6)):
            if ip and not addresses.packed(ip):
                yield f"addressing[{index}].{name}: {ip!r} is not an IP address"


def _entries(
    networking: objects.Networking | None,
    *,
    namespace: str,
    pod: str,
    identity: int,
    key: int,
    service_account: str,
) -> Iterator[IPEntry]:
    if networking is None:
        return
    host = addresses.canonical(networking.node)
    for pair in networking.addressing:
        for text in (pair.ipv4, pair.ipv6):
            ip = addresses.canonical(text)
            if ip:
                yield IPEntry(
                    ip=ip,
                    host_ip=host,
                    id=identity & 0xFFFFFFFF,
                    key=key & 0xFF,
                    namespace=namespace,
                    pod=pod,
                    service_account=service_account,
                )


def pod_addresses(pod: objects.Pod) -> tuple[str, ...]:
    """A v1 Pod's own addresses, canonical; none for host-network and finished pods."""
    if pod.spec.host_network or pod.status.phase in FINISHED:
        return ()
    told = [each.ip for each in pod.status.pod_ips] or [pod.status.pod_ip]
    return tuple(dict.fromkeys(ip for text in told if (ip := addresses.canonical(text))))


def bad_pod_addresses(pod: objects.Pod) -> Iterator[str]:
    """What in a pod's status is no address, one sentence each."""
    told: Iterable[tuple[str, str]] = (
        ("podIP", pod.status.pod_ip),
        ("hostIP", pod.status.host_ip),
        *((f"podIPs[{index}].ip", each.ip) for index, each in enumerate(pod.status.pod_ips)),
    )
    for name, ip in told:
        if ip and not addresses.packed(ip):
            yield f"status.{name}: {ip!r} is not an IP address"


def from_pod(pod: objects.Pod, identity: int, host: str) -> Iterator[IPEntry]:
    """One entry per address of a v1 Pod that runs on a node with address ``host``."""
    for ip in pod_addresses(pod):
        yield IPEntry(
            ip=ip,
            host_ip=host,
            id=identity,
            namespace=pod.metadata.namespace,
            pod=pod.metadata.name,
            service_account=service_account(pod),
        )


def service_account(pod: objects.Pod) -> str:
    """As the API server would fill it in."""
    return pod.spec.service_account_name or "default"


def host_address(pod: objects.Pod) -> str:
    """The address of its node that a v1 Pod's status tells; empty when it tells none."""
    return addresses.canonical(pod.status.host_ip)
