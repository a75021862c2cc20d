"""The facts that clusters tell each other: frozen values whose JSON is the wire format."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType, field

from clustermesh import addresses, gojson
from clustermesh.gojson import always

Uint8 = Annotated[int, Meta(ge=0, le=0xFF)]
Uint16 = Annotated[int, Meta(ge=0, le=0xFFFF)]
Uint32 = Annotated[int, Meta(ge=0, le=0xFFFFFFFF)]
Family = Literal[4, 6]

# An omitted map and an empty one differ on the wire (1.17 writes ``"hostnames":{}``, 1.20 does
# not). The omitted one is this value: it reads as an empty map, and encoding leaves it out.
OMITTED: Mapping[str, str] = MappingProxyType({})
OMITTED_ZONES: "Mapping[str, Zone]" = MappingProxyType({})

CLUSTER_LABEL = "io.cilium.k8s.policy.cluster"


def _map() -> dict[str, Any]:
    """An empty map that is written: msgspec would leave out what plain ``dict`` made."""
    return {}


class GoStruct(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What Go's encoding/json reads on the other side; see ``gojson.Reader`` for unknown fields."""


class Capabilities(GoStruct, frozen=True, omit_defaults=True, rename="camel"):
    """What a cluster's control plane does (contract kvstore 2.1)."""

    synced_canaries: bool = False
    cached: bool = False
    max_connected_clusters: Uint32 = 0
    service_exports_enabled: bool | None = None
    endpoint_slices_export_mode: str = ""


class ClusterConfig(GoStruct, frozen=True, omit_defaults=True):
    """``cilium/cluster-config/C`` (contract kvstore 2.1)."""

    id: Uint32 = 0
    capabilities: Capabilities = always(Capabilities())


class NodeAddress(GoStruct, frozen=True):
    """One address of a node; ``type`` as in contract kvstore 2.2."""

    type: str = field(name="Type", default="")
    ip: str = field(name="IP", default="")


class Cidr(GoStruct, frozen=True):
    """A prefix as Go's net.IPNet: address text and base64 mask."""

    ip: str = field(name="IP", default="")
    mask: str | None = field(name="Mask", default=None)

    @classmethod
    def of(cls, text: str) -> "Cidr | None":
        """The prefix that ``10.1.2.3/24`` names, host bits cleared; None when it is none."""
        ip, ones = addresses.prefix(text)
        return cls(ip, addresses.mask_text(ones, 128 if ":" in ip else 32)) if ip else None

    def text(self) -> str:
        """Canonical ``address/length`` with host bits cleared; empty when it is no prefix."""
        raw = addresses.packed(self.ip)
        ones, bits = addresses.mask_length(self.mask or "")
        if not raw or bits != len(raw) * 8:
            return ""
        return f"{addresses.spelled(addresses.masked(raw, ones))}/{ones}"


class Node(GoStruct, frozen=True, omit_defaults=True, rename="pascal"):
    """``cilium/state/nodes/v1/C/<node>``; nothing is ever omitted (contract kvstore 2.2)."""

    name: str = always("")
    cluster: str = always("")
    addresses: tuple[NodeAddress, ...] | None = field(
        name="IPAddresses", default_factory=lambda: None
    )
    ipv4_alloc_cidr: Cidr | None = field(name="IPv4AllocCIDR", default_factory=lambda: None)
    ipv4_secondary_alloc_cidrs: tuple[Cidr, ...] | None = field(
        name="IPv4SecondaryAllocCIDRs", default_factory=lambda: None
    )
    ipv6_alloc_cidr: Cidr | None = field(name="IPv6AllocCIDR", default_factory=lambda: None)
    ipv6_secondary_alloc_cidrs: tuple[Cidr, ...] | None = field(
        name="IPv6SecondaryAllocCIDRs", default_factory=lambda: None
    )
    ipv4_health_ip: str = field(name="IPv4HealthIP", default_factory=str)
    ipv6_health_ip: str = field(name="IPv6HealthIP", default_factory=str)
    ipv4_ingress_ip: str = field(name="IPv4IngressIP", default_factory=str)
    ipv6_ingress_ip: str = field(name="IPv6IngressIP", default_factory=str)
    cluster_id: Uint32 = field(name="ClusterID", default_factory=int)
    source: str = always("")
    encryption_key: Uint8 = always(0)
    labels: dict[str, str] | None = always(None)
    annotations: dict[str, str] | None = always(None)
    node_identity: Uint32 | UnsetType = UNSET
    """Only 1.17 writes it."""
    wireguard_pub_key: str = always("")
    boot_id: str = field(name="BootID", default_factory=str)

    def pod_cidrs(self) -> tuple[str, ...]:
        """Its pod ranges as canonical text: IPv4 first, the main one of a family first."""
        cidrs = (
            self.ipv4_alloc_cidr,
            *(self.ipv4_secondary_alloc_cidrs or ()),
            self.ipv6_alloc_cidr,
            *(self.ipv6_secondary_alloc_cidrs or ()),
        )
        return tuple(text for cidr in cidrs if cidr is not None and (text := cidr.text()))

    def underlay(self, family: Family) -> str:
        """Where other nodes reach it: InternalIP, else ExternalIP, else any other; "" for none."""
        usable = {
            address.type: canonical
            for address in reversed(self.addresses or ())
            if address.type != "CiliumInternalIP"
            and (canonical := addresses.canonical(address.ip))
            and addresses.family(canonical) == family
        }
        for preferred in ("InternalIP", "ExternalIP"):
            if preferred in usable:
                return usable[preferred]
        return next(reversed(usable.values()), "")

    def overlay(self) -> tuple[str, ...]:
        """Its addresses inside the mesh (type CiliumInternalIP), canonical."""
        return tuple(
            canonical
            for address in self.addresses or ()
            if address.type == "CiliumInternalIP" and (canonical := addresses.canonical(address.ip))
        )


class NamedPort(GoStruct, frozen=True, rename="pascal"):
    """A container port's name (contract kvstore 2.3)."""

    name: str = ""
    port: Uint16 = 0
    protocol: str = ""


class IPEntry(GoStruct, frozen=True, omit_defaults=True):
    """``cilium/state/ip/v1/default/<ip or cidr>`` (contract kvstore 2.3)."""

    ip: str = field(name="IP", default_factory=str)
    mask: str | None = field(name="Mask", default_factory=lambda: None)
    host_ip: str = field(name="HostIP", default_factory=str)
    id: Uint32 = field(name="ID", default_factory=int)
    key: Uint8 = field(name="Key", default_factory=int)
    metadata: str = field(name="Metadata", default_factory=str)
    namespace: str = field(name="K8sNamespace", default="")
    pod: str = field(name="K8sPodName", default="")
    service_account: str = field(name="K8sServiceAccount", default="")
    named_ports: tuple[NamedPort, ...] = field(name="NamedPorts", default=())

    def cidr(self) -> str:
        """Canonical ``address/length``, /32 or /128 for a host; empty when it is no prefix."""
        if self.mask is None:
            ip = addresses.canonical(self.ip)
            return f"{ip}/{128 if ':' in ip else 32}" if ip else ""
        return Cidr(self.ip, self.mask).text()


class Identity(msgspec.Struct, frozen=True, gc=False):
    """``cilium/state/identities/v1/id/<id>``; its value is plain text (contract kvstore 2.4)."""

    id: int
    labels: str

    def label_list(self) -> tuple[str, ...]:
        """The labels as ``source:key=value``. Values are not escaped, so ``;`` splits them too."""
        return tuple(label for label in self.labels.split(";") if label)


class Port(GoStruct, frozen=True, rename="pascal"):
    """A port of a frontend or backend: ``{"Protocol":"TCP","Port":80}``."""

    protocol: str = ""
    port: Uint16 = 0


class ZoneHint(GoStruct, frozen=True):
    """A zone whose clients should use a backend."""

    name: str = ""


class Zone(GoStruct, frozen=True, rename="camel"):
    """Where a backend is and whom it should serve (contract kvstore 2.5)."""

    zone: str = ""
    for_zones: tuple[ZoneHint, ...] | None = ()


PortsByName = dict[str, Port]
"""Port name (the empty string for an unnamed port) to port."""


class ClusterService(GoStruct, frozen=True, omit_defaults=True, rename="camel"):
    """``cilium/state/services/v1/C/N/<name>`` (contract kvstore 2.5)."""

    cluster: str = always("")
    namespace: str = always("")
    name: str = always("")
    frontends: dict[str, PortsByName] = field(default_factory=_map)
    """Frontend address to service ports."""
    backends: dict[str, PortsByName] = field(default_factory=_map)
    """Backend address to target ports, under the names of the service ports."""
    hostnames: Mapping[str, str] = OMITTED
    zones: Mapping[str, Zone] = OMITTED_ZONES
    labels: dict[str, str] | None = field(default_factory=_map)
    selector: dict[str, str] | None = field(default_factory=_map)
    include_external: bool = field(default_factory=bool)
    shared: bool = field(default_factory=bool)
    cluster_id: Uint32 = field(name="clusterID", default_factory=int)


class ExportedPort(GoStruct, frozen=True, omit_defaults=True, rename="camel"):
    """A port of an exported service (contract kvstore 2.6)."""

    name: str = ""
    protocol: str = ""
    app_protocol: str | None = None
    port: Annotated[int, Meta(ge=-0x80000000, le=0x7FFFFFFF)] = always(0)


class ClientIP(GoStruct, frozen=True, omit_defaults=True, rename="camel"):
    """Session affinity by client address, in seconds."""

    timeout_seconds: int | None = None


class AffinityConfig(GoStruct, frozen=True, omit_defaults=True):
    """Configuration of session affinity."""

    client_ip: ClientIP | None = field(name="clientIP", default=None)


class ServiceExport(GoStruct, frozen=True, omit_defaults=True, rename="camel"):
    """``cilium/state/serviceexports/v1/C/N/<name>`` (contract kvstore 2.6)."""

    cluster: str = always("")
    name: str = always("")
    namespace: str = always("")
    annotations: Mapping[str, str] = OMITTED
    labels: Mapping[str, str] = OMITTED
    export_creation_timestamp: str = always("")
    """RFC 3339, UTC, seconds."""
    ports: tuple[ExportedPort, ...] | None = field(default_factory=lambda: ())
    type: str = always("")
    session_affinity: str = always("")
    session_affinity_config: AffinityConfig | None = None
    ip_families: tuple[str, ...] = ()
    internal_traffic_policy: str | None = None
    traffic_distribution: str | None = None


class SliceEndpoint(msgspec.Struct, frozen=True, gc=False):
    """One endpoint of a slice; a condition that is None is unknown (contract kvstore 2.7)."""

    addresses: tuple[str, ...] = ()
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None
    hostname: str = ""
    node_name: str = ""
    zone: str = ""
    zone_hints: tuple[str, ...] = ()


class SlicePort(msgspec.Struct, frozen=True, gc=False):
    """One port of a slice; ``port`` None means all ports."""

    name: str = ""
    protocol: str = "TCP"
    port: int | None = None
    app_protocol: str = ""


class EndpointSlice(msgspec.Struct, frozen=True, gc=False):
    """``cilium/state/endpointslices/v1/C/N/<slice>``: a decoded message of contract kvstore 2.7."""

    cluster: str
    cluster_id: int
    namespace: str
    name: str
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    address_type: str = "IPv4"
    endpoints: tuple[SliceEndpoint, ...] = ()
    ports: tuple[SlicePort, ...] = ()


Fact = Node | IPEntry | Identity | ClusterService | ServiceExport | EndpointSlice

encode_json = gojson.encode
