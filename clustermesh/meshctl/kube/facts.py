"""What a cluster's Kubernetes says that matters to a mesh, read once for a plan."""

from collections.abc import Iterator
from typing import NamedTuple

import yaml

from clustermesh.findings import Premises, Underlay
from clustermesh.meshctl.kube.members import cilium_config, lists_users, size_of
from clustermesh.meshfile import Cluster
from clustermesh.places import secrets
from clustermesh.places.connection import Object, connection
from clustermesh.places.objects import ObjectShelf
from clustermesh.version import VERSION

VXLAN_PORT = "8472"
GENEVE_PORT = "6081"


class Facts(NamedTuple):
    """``premises`` are the cluster's, of all its nodes; ``keys`` of nodes that encrypt."""

    premises: Premises
    config: dict[str, str]
    """Cilium's; empty without Cilium."""
    keys: dict[str, int]
    services: list[Object]
    policies: list[Object]
    users: frozenset[str] | None
    """Names in the users ConfigMap; None: there is none."""


def read(cluster: Cluster) -> Facts:
    """Raises ``NoAnswer``."""
    made = connection(cluster.context, cluster.kubeconfig)
    config = dict(cilium_config(made, cluster.namespace))
    nodes = made.items("/api/v1/nodes")
    theirs = made.items("/apis/cilium.io/v2/ciliumnodes") if config else []
    services = made.items("/api/v1/services")
    addresses = tuple(sorted({ip for node in nodes for ip in _addresses(node)}))
    ranges = {it for node in nodes for it in node.get("spec", {}).get("podCIDRs", [])}
    ranges |= {it for node in theirs for it in _pod_cidrs(node)}
    users = secrets.users(made, cluster.namespace)
    return Facts(
        premises=Premises(
            cluster=cluster.name,
            cluster_id=cluster.id,
            node="(Kubernetes)",
            version=VERSION,
            max_clusters=size_of(cluster),
            pod_ranges=tuple(sorted(ranges)),
            node_addresses=addresses,
            service_addresses=tuple(sorted({ip for it in services for ip in _cluster_ips(it)})),
            underlay=_underlay(config, addresses) if config else None,
        ),
        config=config,
        keys=dict(_keys(theirs)),
        services=services,
        policies=made.items("/apis/networking.k8s.io/v1/networkpolicies"),
        users=_names(users) if lists_users(made, cluster.namespace) else None,
    )


def _underlay(config: dict[str, str], addresses: tuple[str, ...]) -> Underlay:
    protocol = config.get("tunnel-protocol", "vxlan")
    usual = GENEVE_PORT if protocol == "geneve" else VXLAN_PORT
    port = config.get("tunnel-port", usual)
    if not port.isdecimal() or port == "0":
        port = usual
    return Underlay(node_ip=(*addresses, "")[0], protocol=protocol, port=int(port))


def _addresses(node: Object) -> Iterator[str]:
    found = node.get("status", {}).get("addresses", [])
    return (it["address"] for it in found if it["type"] in ("InternalIP", "ExternalIP"))


def _pod_cidrs(node: Object) -> Iterator[str]:
    yield from node.get("spec", {}).get("ipam", {}).get("podCIDRs", [])


def _keys(nodes: list[Object]) -> Iterator[tuple[str, int]]:
    for node in nodes:
        if key := node.get("spec", {}).get("encryption", {}).get("key", 0):
            yield node["metadata"]["name"], int(key)


def _cluster_ips(service: Object) -> Iterator[str]:
    spec = service.get("spec", {})
    found = spec.get("clusterIPs") or [spec.get("clusterIP", "")]
    return (ip for ip in found if ip not in ("", "None"))


def _names(users: ObjectShelf) -> frozenset[str]:
    try:
        document = yaml.safe_load(users.read(secrets.USERS_KEY)) or {}
        return frozenset(str(user["name"]) for user in document.get("users") or [])
    except (yaml.YAMLError, AttributeError, KeyError, TypeError):
        return frozenset()
