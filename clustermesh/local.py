"""The private tree: local services in full, for the own cluster's agents only.

Releases may differ by one: unknown fields are ignored, missing ones take their default, and a
frontend whose scope an agent does not know is passed over by it.
"""

from enum import StrEnum
from typing import Final

import msgspec

from clustermesh import gojson
from clustermesh.checks import BadFact, address
from clustermesh.keys import Kind
from clustermesh.model import Uint16, Uint32

SERVICES_PREFIX: Final = "clustermesh/local/v1/services/"
SYNCED: Final = "clustermesh/local/v1/synced/services"
ANNOTATIONS: Final = "service.clustermesh.io/"
"""Prefix of the annotations that travel in ``LocalService.annotations``, keys in full."""


class LocalKind(StrEnum):
    """Kinds of the private tree, which only the own cluster's agents read."""

    SERVICES = "local-services"


AnyKind = Kind | LocalKind


class Scope(StrEnum):
    """How a frontend is reached. A NodePort frontend has no address: it is every node's."""

    CLUSTER_IP = "ClusterIP"
    EXTERNAL_IP = "ExternalIP"
    LOAD_BALANCER = "LoadBalancer"
    NODE_PORT = "NodePort"


class Frontend(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel", gc=False):
    """One address and port of a service; ``name`` is the port's, empty for an unnamed one."""

    address: str = ""
    port: Uint16 = 0
    name: str = ""
    protocol: str = "TCP"
    scope: str = Scope.CLUSTER_IP


class NamedPort(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel", gc=False):
    """A target port under the name of its service port."""

    name: str = ""
    protocol: str = "TCP"
    port: Uint16 = 0


class LocalBackend(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel", gc=False):
    """One endpoint address, in any state: an unknown condition reads as Kubernetes defines it."""

    address: str = ""
    ports: tuple[NamedPort, ...] = ()
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    node: str = ""
    zone: str = ""
    zone_hints: tuple[str, ...] = ()
    hostname: str = ""


class LocalService(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel", gc=False):
    """A service of the own cluster. ``shared`` says whether its backends are published."""

    namespace: str = ""
    name: str = ""
    type: str = "ClusterIP"
    headless: bool = False
    frontends: tuple[Frontend, ...] = ()
    backends: tuple[LocalBackend, ...] = ()
    is_global: bool = msgspec.field(name="global", default=False)
    shared: bool = False
    affinity: str = "none"
    """``none``, ``local`` or ``remote`` (contract kvstore 6.1)."""
    annotations: dict[str, str] = {}
    session_affinity_seconds: Uint32 = 0
    """0: none."""
    internal_traffic_policy: str = "Cluster"
    external_traffic_policy: str = "Cluster"
    publish_not_ready_addresses: bool = False
    traffic_distribution: str = ""
    load_balancer_source_ranges: tuple[str, ...] = ()


def key_of(service: LocalService) -> str:
    """Where the service is in the tree."""
    return f"{SERVICES_PREFIX}{service.namespace}/{service.name}"


def encode(service: LocalService) -> bytes:
    """The value; equal services give equal bytes."""
    return gojson.encode(service)


_reader = gojson.Reader(LocalService)


def decode(key: str, value: bytes) -> LocalService:
    """The service at a key of the tree. Raises ``BadFact`` naming the field."""
    try:
        service = _reader.decode(value)
    except msgspec.MsgspecError as error:
        raise BadFact(str(error)) from None
    if key_of(service) != key:
        raise BadFact(f"namespace/name: {service.namespace}/{service.name}, the key says {key}")
    for index, frontend in enumerate(service.frontends):
        if frontend.address:
            address(f"frontends[{index}].address", frontend.address)
    for index, backend in enumerate(service.backends):
        address(f"backends[{index}].address", backend.address)
    return service
