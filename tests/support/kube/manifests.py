"""Manifests that any API server accepts."""

from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]


def _object(
    api: str,
    kind: str,
    name: str,
    *,
    space: str = "",
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    **rest: Any,
) -> Manifest:
    meta: Manifest = {"name": name}
    if space:
        meta["namespace"] = space
    if labels:
        meta["labels"] = labels
    if annotations:
        meta["annotations"] = annotations
    return {"apiVersion": api, "kind": kind, "metadata": meta, **rest}


def namespace(name: str, **annotations: str) -> Manifest:
    return _object("v1", "Namespace", name, annotations=annotations)


def service(name: str, ip: str = "", *, space: str = "default", **annotations: str) -> Manifest:
    """A ClusterIP service on port 80; without ``ip`` the server picks one, or none is needed."""
    spec: Manifest = {
        "type": "ClusterIP",
        "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
        "selector": {"app": name},
    }
    if ip:
        spec |= {"clusterIP": ip, "clusterIPs": [ip]}
    return _object("v1", "Service", name, space=space, annotations=annotations, spec=spec)


def endpoint_slice(
    name: str, owner: str, *ips: str, space: str = "default", **labels: str
) -> Manifest:
    """Ready endpoints at port 8080."""
    return _object(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        name,
        space=space,
        labels={"kubernetes.io/service-name": owner, **labels},
        addressType="IPv4",
        ports=[{"name": "http", "port": 8080, "protocol": "TCP"}],
        endpoints=[{"addresses": [ip], "conditions": {"ready": True}} for ip in ips],
    )


def node(name: str, ip: str, cidr: str) -> Manifest:
    return _object(
        "v1",
        "Node",
        name,
        spec={"podCIDR": cidr, "podCIDRs": [cidr]},
        status={"addresses": [{"type": "InternalIP", "address": ip}]},
    )


def pod(name: str, ip: str, *, phase: str = "Running", space: str = "default") -> Manifest:
    return _object(
        "v1",
        "Pod",
        name,
        space=space,
        labels={"app": name},
        spec={"containers": [{"name": "main", "image": "example.test/main"}]},
        status={"phase": phase, "podIP": ip, "podIPs": [{"ip": ip}]},
    )


def cilium_node(name: str, ip: str, cidr: str) -> Manifest:
    spec = {"addresses": [{"type": "InternalIP", "ip": ip}], "ipam": {"podCIDRs": [cidr]}}
    return _object("cilium.io/v2", "CiliumNode", name, spec=spec)


def cilium_identity(number: int, **labels: str) -> Manifest:
    found = {f"k8s:{key}": value for key, value in labels.items()}
    return _object("cilium.io/v2", "CiliumIdentity", str(number), **{"security-labels": found})


def cilium_endpoint(name: str, ip: str, number: int, *, space: str = "default") -> Manifest:
    status = {
        "identity": {"id": number},
        "networking": {"addressing": [{"ipv4": ip}], "node": "192.168.0.1"},
    }
    return _object("cilium.io/v2", "CiliumEndpoint", name, space=space, status=status)


def service_export(name: str, *, space: str = "default") -> Manifest:
    return _object("multicluster.x-k8s.io/v1alpha1", "ServiceExport", name, space=space)


def crd(
    group: str, version: str, kind: str, plural: str, *, namespaced: bool, status: bool = False
) -> Manifest:
    """The least that a server takes for a CustomResourceDefinition: any content goes.

    ``status``: it is written at its own path.
    """
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return _object(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        f"{plural}.{group}",
        spec={
            "group": group,
            "scope": "Namespaced" if namespaced else "Cluster",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind},
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    **({"subresources": {"status": {}}} if status else {}),
                }
            ],
        },
    )


_CHART = Path(__file__).parents[3] / "helm/clustermesh"
MESH_IDENTITIES: Manifest = yaml.safe_load((_CHART / "crds/meshidentities.yaml").read_text())
SERVICE_EXPORTS = crd(
    "multicluster.x-k8s.io", "v1alpha1", "ServiceExport", "serviceexports", namespaced=True
)
CILIUM = (
    crd("cilium.io", "v2", "CiliumNode", "ciliumnodes", namespaced=False),
    crd("cilium.io", "v2", "CiliumIdentity", "ciliumidentities", namespaced=False),
    crd("cilium.io", "v2", "CiliumEndpoint", "ciliumendpoints", namespaced=True),
)


def cluster_role(name: str, user: str, *rules: tuple[str, str, str]) -> tuple[Manifest, Manifest]:
    """A role and its binding to a user; a rule is API group, resource and space-separated verbs."""
    role = _object(
        "rbac.authorization.k8s.io/v1",
        "ClusterRole",
        name,
        rules=[
            {"apiGroups": [group], "resources": [resource], "verbs": verbs.split()}
            for group, resource, verbs in rules
        ],
    )
    binding = _object(
        "rbac.authorization.k8s.io/v1",
        "ClusterRoleBinding",
        name,
        roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        subjects=[{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    )
    return role, binding
