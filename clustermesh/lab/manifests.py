"""The lab's objects as Kubernetes manifests: what a kubelet, a CNI and controllers would create."""

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from clustermesh.lab.topology import (
    ECHO_PORT,
    SERVICE_PORT,
    Addresses,
    Cluster,
    Flavour,
    Service,
    Topology,
)

Manifest = dict[str, Any]
"""One document, as YAML has it: the shape is Kubernetes' and is checked by whoever reads it."""

OVERLAY_ANNOTATION = "node.clustermesh.io/overlay-addresses"
FIRST_IDENTITY = 1000
PORTS = (("web", "TCP"), ("chat", "UDP"))


class Pod(msgspec.Struct, frozen=True, kw_only=True):
    """A pod of the lab: a network namespace on a node, with an echo server in it.

    ``node`` counts from 1, ``slot`` is its place among the node's addresses.
    """

    cluster: str
    node: int
    slot: int
    name: str
    workload: str
    namespace: str
    ips: tuple[str, ...]

    @property
    def node_name(self) -> str:
        return f"node-{self.node}"

    @property
    def target(self) -> str:
        """What ``meshctl lab`` calls it."""
        return f"{self.cluster}/{self.name}"


def file_name(manifest: Manifest) -> str:
    """Where a manifest is kept: ``service-default-rebel-base.yaml``."""
    meta = manifest["metadata"]
    parts = (manifest["kind"].lower(), meta.get("namespace", ""), meta["name"])
    return "-".join(part for part in parts if part) + ".yaml"


def standing(topology: Topology, cluster: Cluster) -> Iterator[Manifest]:
    """Everything but the pods and what follows from them."""
    addresses = Addresses(topology)
    namespaces = {workload.namespace for workload in cluster.workloads}
    namespaces |= {service.namespace for service in cluster.services}
    for namespace in sorted(namespaces):
        yield _namespace(namespace)
    for number in range(1, cluster.nodes + 1):
        yield _node(addresses, cluster, number)
    if cluster.flavour is Flavour.CILIUM:
        for workload in cluster.workloads:
            yield _identity(topology, cluster, workload.name, workload.namespace)
    for order, service in enumerate(cluster.services):
        yield service_manifest(service, _service_ips(addresses, cluster, service, order))


def for_pod(topology: Topology, cluster: Cluster, pod: Pod) -> Manifest:
    """The object that says where a pod is and what identity it has."""
    if cluster.flavour is Flavour.CORE:
        return _pod(Addresses(topology), pod)
    return _endpoint(topology, cluster, pod)


def slices(cluster: Cluster, pods: Iterable[Pod]) -> Iterator[Manifest]:
    """The EndpointSlices of a cluster's services, one per service and address family."""
    mine = [pod for pod in pods if pod.cluster == cluster.name]
    for service in cluster.services:
        behind = [
            pod
            for pod in mine
            if pod.workload == service.workload and pod.namespace == service.namespace
        ]
        families = sorted({6 if ":" in ip else 4 for pod in behind for ip in pod.ips} | {4})
        for family in families:
            yield _slice(service, family, behind)


def service_manifest(service: Service, cluster_ips: Sequence[str]) -> Manifest:
    """A Service in front of the echo servers."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": service.name,
            "namespace": service.namespace,
            "annotations": dict(service.annotations),
            "labels": {"app": service.name},
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": cluster_ips[0],
            "clusterIPs": list(cluster_ips),
            "ipFamilies": ["IPv6" if ":" in ip else "IPv4" for ip in cluster_ips],
            "selector": {"app": service.workload} if service.workload else {},
            "ports": [
                {"name": name, "protocol": protocol, "port": SERVICE_PORT, "targetPort": ECHO_PORT}
                for name, protocol in PORTS
            ],
        },
    }


def annotated(manifest: Manifest, changes: Mapping[str, str | None]) -> Manifest:
    """The manifest with annotations set, or removed where the new value is None."""
    meta = dict(manifest["metadata"])
    annotations = dict(meta.get("annotations") or {})
    for key, value in changes.items():
        annotations.pop(key, None)
        if value is not None:
            annotations[key] = value
    return {**manifest, "metadata": {**meta, "annotations": annotations}}


def identity_labels(cluster: str, workload: str, namespace: str) -> dict[str, str]:
    """The labels that are a pod's identity, in Cilium's spelling."""
    return {
        "k8s:app": workload,
        "k8s:io.cilium.k8s.policy.cluster": cluster,
        "k8s:io.cilium.k8s.policy.serviceaccount": "default",
        "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name": namespace,
        "k8s:io.kubernetes.pod.namespace": namespace,
    }


def identity_number(topology: Topology, cluster: Cluster, workload: str) -> int:
    """A number in the cluster's range (contract kvstore 3) for a workload."""
    shift = 16 if topology.max_connected_clusters == 255 else 15
    names = [item.name for item in cluster.workloads]
    return (cluster.id << shift) + FIRST_IDENTITY + names.index(workload)


def _namespace(name: str) -> Manifest:
    labels = {"kubernetes.io/metadata.name": name}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": labels},
    }


def _node(addresses: Addresses, cluster: Cluster, number: int) -> Manifest:
    families = addresses.families()
    internal = [addresses.node(cluster.name, number, family) for family in families]
    overlay = [addresses.overlay(cluster.name, number, family) for family in families]
    cidrs = addresses.announced(cluster.name, number)
    name = f"node-{number}"
    meta: Manifest = {"name": name, "labels": {"kubernetes.io/hostname": name}}
    if cluster.flavour is Flavour.CILIUM:
        told = [{"type": "InternalIP", "ip": ip} for ip in internal]
        told += [{"type": "CiliumInternalIP", "ip": ip} for ip in overlay]
        return {
            "apiVersion": "cilium.io/v2",
            "kind": "CiliumNode",
            "metadata": meta,
            "spec": {"addresses": told, "ipam": {"podCIDRs": cidrs}},
        }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {**meta, "annotations": {OVERLAY_ANNOTATION: ",".join(overlay)}},
        "spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs} if cidrs else {},
        "status": {
            "addresses": [
                *({"type": "InternalIP", "address": ip} for ip in internal),
                {"type": "Hostname", "address": name},
            ]
        },
    }


def _identity(topology: Topology, cluster: Cluster, workload: str, namespace: str) -> Manifest:
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumIdentity",
        "metadata": {
            "name": str(identity_number(topology, cluster, workload)),
            "labels": {"app": workload},
        },
        "security-labels": identity_labels(cluster.name, workload, namespace),
    }


def _pod(addresses: Addresses, pod: Pod) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod.name,
            "namespace": pod.namespace,
            "uid": _uid(pod),
            "labels": {"app": pod.workload},
        },
        "spec": {
            "nodeName": pod.node_name,
            "serviceAccountName": "default",
            "containers": [{"name": "echo", "ports": [{"containerPort": ECHO_PORT}]}],
        },
        "status": {
            "phase": "Running",
            "hostIP": addresses.node(pod.cluster, pod.node),
            "podIP": pod.ips[0],
            "podIPs": [{"ip": ip} for ip in pod.ips],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def _endpoint(topology: Topology, cluster: Cluster, pod: Pod) -> Manifest:
    labels = identity_labels(cluster.name, pod.workload, pod.namespace)
    families = [("ipv6" if ":" in ip else "ipv4", ip) for ip in pod.ips]
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumEndpoint",
        "metadata": {
            "name": pod.name,
            "namespace": pod.namespace,
            "labels": {"app": pod.workload},
        },
        "status": {
            "id": 1 + pod.slot,
            "state": "ready",
            "identity": {
                "id": identity_number(topology, cluster, pod.workload),
                "labels": sorted(f"{key}={value}" for key, value in labels.items()),
            },
            "networking": {
                "addressing": [dict(families)],
                "node": Addresses(topology).node(cluster.name, pod.node),
            },
        },
    }


def _slice(service: Service, family: int, pods: Sequence[Pod]) -> Manifest:
    endpoints = [
        {
            "addresses": [ip],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "nodeName": pod.node_name,
            "targetRef": {"kind": "Pod", "name": pod.name, "namespace": pod.namespace},
        }
        for pod in pods
        for ip in pod.ips
        if (":" in ip) == (family == 6)
    ]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{service.name}-v{family}",
            "namespace": service.namespace,
            "labels": {
                "kubernetes.io/service-name": service.name,
                "endpointslice.kubernetes.io/managed-by": "lab.clustermesh.io",
            },
        },
        "addressType": f"IPv{family}",
        "endpoints": endpoints,
        "ports": [
            {"name": name, "protocol": protocol, "port": ECHO_PORT} for name, protocol in PORTS
        ],
    }


def _service_ips(
    addresses: Addresses, cluster: Cluster, service: Service, order: int
) -> tuple[str, ...]:
    if service.headless:
        return ("None",)
    return tuple(addresses.service(cluster.name, order, family) for family in addresses.families())


def _uid(pod: Pod) -> str:
    """Stable, so that writing the same pod twice changes nothing."""
    number = zlib.crc32(f"{pod.target}/{pod.ips[0]}".encode())
    return f"00000000-0000-4000-8000-0000{number:08x}"
