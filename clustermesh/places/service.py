"""How other clusters reach what a cluster's Service leads to: its etcd, its join listener."""

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Final

from clustermesh.pki import MESH_DOMAIN
from clustermesh.places.connection import Connection, Object

SERVICE: Final = "clustermesh-apiserver"
"""Name of the Service, and of the Deployment behind it, ours and Cilium's."""
JOIN: Final = "join"
"""Name of the port where clusters join."""

Aliases = Mapping[str, tuple[str, ...]]


def etcd(made: Connection, namespace: str, cluster: str) -> tuple[tuple[str, ...], Aliases]:
    """Endpoints, and addresses of their names; nothing where it cannot be reached from outside.

    Addresses are given to the name that the server's certificate has.
    """
    found = _service(made, namespace)
    ports = found.get("spec", {}).get("ports") or [{}]
    port: Object = next((it for it in ports if it.get("name") == "etcd"), ports[0])
    hosts, number = _exposed(made, found, port)
    ips = [host for host in hosts if _is_ip(host)]
    if ips:
        server = f"{cluster}.{MESH_DOMAIN}"
        return (f"https://{server}:{number}",), {server: tuple(ips)}
    return tuple(f"https://{host}:{number}" for host in hosts), {}


def join(made: Connection, namespace: str) -> list[str]:
    """``host:port`` of the join listener; nothing where the Service has no such port."""
    found = _service(made, namespace)
    for port in found.get("spec", {}).get("ports") or []:
        if port.get("name") == JOIN:
            hosts, number = _exposed(made, found, port)
            return [f"[{it}]:{number}" if ":" in it else f"{it}:{number}" for it in hosts]
    return []


def _service(made: Connection, namespace: str) -> Object:
    return made.get(f"/api/v1/namespaces/{namespace}/services/{SERVICE}") or {}


def _exposed(made: Connection, service: Object, port: Object) -> tuple[Sequence[str], object]:
    spec = service.get("spec", {})
    match spec.get("type"):
        case "LoadBalancer":
            ingress = service.get("status", {}).get("loadBalancer", {}).get("ingress") or []
            hosts = [entry.get("ip") or entry.get("hostname", "") for entry in ingress]
            return [host for host in hosts if host], port.get("port")
        case "NodePort":
            return list(_node_ips(made)), port.get("nodePort")
    return list(spec.get("externalIPs") or []), port.get("port")


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _node_ips(made: Connection) -> Iterator[str]:
    for node in made.items("/api/v1/nodes"):
        addresses = node.get("status", {}).get("addresses", [])
        yield from (it["address"] for it in addresses if it["type"] == "InternalIP")
