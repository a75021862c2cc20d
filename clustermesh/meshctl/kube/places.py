"""Where connecting writes in a Kubernetes cluster: the Secrets that agents mount (contract 5.1)."""

import base64
from typing import Final

import yaml

from clustermesh.meshctl.kube.members import USERS, has_kvstoremesh, is_cilium
from clustermesh.meshfile import Cluster
from clustermesh.pki import Authority, CertificateError
from clustermesh.places.connection import Connection, connection
from clustermesh.places.objects import ObjectShelf
from clustermesh.places.place import Place
from clustermesh.places.shelf import MOUNTED

FOR_AGENTS: Final = "cilium-clustermesh"
FOR_KVSTOREMESH: Final = "cilium-kvstoremesh"
USERS_KEY: Final = "users.yaml"
AUTHORITIES: Final = ("clustermesh-ca", "cilium-ca")
"""Secrets with ``ca.crt`` and ``ca.key``: of our chart, of Cilium's."""


def place_of(cluster: Cluster) -> Place:
    """Of Cilium nothing is written but these Secrets: its users are its own.

    Whose the users are is asked now: a cluster that was silent when the mesh was opened is known
    from the mesh file alone, which does not say. Raises ``NoAnswer``.
    """
    made, space = connection(cluster.context, cluster.kubeconfig), cluster.namespace
    agents = ObjectShelf(made, "Secret", space, FOR_AGENTS)
    cache = ObjectShelf(made, "Secret", space, FOR_KVSTOREMESH)
    behind = has_kvstoremesh(made, space) or cache.exists()
    users = ObjectShelf(made, "ConfigMap", space, USERS)
    shared = cluster.shared_user or not users.exists()
    return Place(
        remotes=cache if behind else agents,
        users=None if shared or cluster.cilium or is_cilium(made, space) else users,
        users_name=USERS_KEY,
        authority=lambda: _authority(made, space),
        agents=agents if behind else None,
        agents_file=lambda: to_own_etcd(space),
        shared_user=shared,
    )


def to_own_etcd(namespace: str) -> bytes:
    """What agents read of each remote cluster when a kvstoremesh keeps a copy of it."""
    document = {
        "endpoints": [f"https://clustermesh-apiserver.{namespace}.svc:2379"],
        "trusted-ca-file": f"{MOUNTED}/local-etcd-client-ca.crt",
        "key-file": f"{MOUNTED}/local-etcd-client.key",
        "cert-file": f"{MOUNTED}/local-etcd-client.crt",
    }
    return yaml.safe_dump(document, sort_keys=False).encode()


def _authority(made: Connection, namespace: str) -> Authority:
    for name in AUTHORITIES:
        path = f"/api/v1/namespaces/{namespace}/secrets/{name}"
        data = (made.get(path) or {}).get("data") or {}
        if "ca.crt" in data and "ca.key" in data:
            where = f"Secret {namespace}/{name} of context {made.context}"
            return Authority.of(
                base64.b64decode(data["ca.crt"]),
                base64.b64decode(data["ca.key"]),
                names=(f"{where}, ca.crt", f"{where}, ca.key"),
            )
    raise CertificateError(
        f"context {made.context}: no Secret {' or '.join(AUTHORITIES)} in namespace {namespace}"
        " holds ca.crt and ca.key, which sign the readers' certificates"
    )
