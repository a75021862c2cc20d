"""The Secrets and ConfigMaps of a cluster that trust is made of, named as Cilium's chart names them
(contract kvstore 5.1 and 7).
"""

from typing import Final

import yaml

from clustermesh.certificates import CertificateError, parsed
from clustermesh.pki import CROSS, Authority
from clustermesh.places.connection import Connection
from clustermesh.places.objects import TLS, ObjectShelf
from clustermesh.places.shelf import MOUNTED

FOR_AGENTS: Final = "cilium-clustermesh"
FOR_KVSTOREMESH: Final = "cilium-kvstoremesh"
USERS: Final = "clustermesh-remote-users"
USERS_KEY: Final = "users.yaml"
AGENT: Final = "clustermesh-agent"
AGENT_KEY: Final = "etcd.yaml"
AUTHORITIES: Final = ("clustermesh-ca", "cilium-ca")
"""Secrets with ``ca.crt`` and ``ca.key``: of our chart, of Cilium's."""
KINDS: Final = ("server", "admin", "local", "agent", "remote")
TOKENS: Final = "clustermesh-join-tokens"
PEERS: Final = "clustermesh-join-peers"


def secret(made: Connection, namespace: str, name: str) -> ObjectShelf:
    return ObjectShelf(made, "Secret", namespace, name)


def users(made: Connection, namespace: str) -> ObjectShelf:
    """Who may read the cluster's etcd."""
    return ObjectShelf(made, "ConfigMap", namespace, USERS)


def certificate(made: Connection, namespace: str, kind: str) -> ObjectShelf:
    """Key and certificate of the etcd, or of one of its users, with who vouches for the etcd."""
    name = f"clustermesh-apiserver-{kind}-cert"
    return ObjectShelf(made, "Secret", namespace, name, TLS)


def authority_shelf(made: Connection, namespace: str) -> ObjectShelf | None:
    """Where the cluster's authority is; None: there is none. Raises ``NoAnswer``."""
    for name in AUTHORITIES:
        shelf = secret(made, namespace, name)
        if {"ca.crt", "ca.key"} <= shelf.pieces().keys():
            return shelf
    return None


def authority(made: Connection, namespace: str) -> Authority:
    """What signs the cluster's certificates. Raises ``CertificateError`` and ``NoAnswer``."""
    shelf = authority_shelf(made, namespace)
    if shelf is None:
        raise CertificateError(
            f"context {made.context}: no Secret {' or '.join(AUTHORITIES)} in namespace {namespace}"
            " holds ca.crt and ca.key, which sign the readers' certificates"
        )
    held = shelf.pieces()
    crosses = parsed(held[CROSS], shelf.where(CROSS)) if held.get(CROSS) else []
    names = (f"context {made.context}, {shelf.where(it)}" for it in ("ca.crt", "ca.key"))
    certificate, key = names
    return Authority.of(held["ca.crt"], held["ca.key"], names=(certificate, key), crosses=crosses)


def to_own_etcd(made: Connection, namespace: str) -> bytes:
    """What agents read of each remote cluster when a kvstoremesh keeps a copy of it: the way to
    their own etcd that our chart gives them, else the Service that Cilium's agents use too.
    """
    told = ObjectShelf(made, "ConfigMap", namespace, AGENT).pieces().get(AGENT_KEY, b"")
    document = yaml.safe_load(told) or {}
    way = {key: document[key] for key in ("endpoints", "cilium-host-aliases") if key in document}
    document = {
        "endpoints": [f"https://clustermesh-apiserver.{namespace}.svc:2379"],
        "trusted-ca-file": f"{MOUNTED}/local-etcd-client-ca.crt",
        "key-file": f"{MOUNTED}/local-etcd-client.key",
        "cert-file": f"{MOUNTED}/local-etcd-client.crt",
        **way,
    }
    return yaml.safe_dump(document, sort_keys=False).encode()
