"""The custom resources of Cilium: cilium.io/v2 and v2alpha1."""

import msgspec

from clustermesh.sources.objects.base import Meta, Wire


class CiliumAddress(Wire, frozen=True, gc=False):
    """An address of a CiliumNode."""

    type: str = ""
    ip: str = ""


class Key(Wire, frozen=True, gc=False):
    """An encryption key's number."""

    key: int = 0


class Pair(Wire, frozen=True, gc=False):
    """One address per family."""

    ipv4: str = ""
    ipv6: str = ""


class PoolAllocation(Wire, frozen=True, gc=False):
    """What a node got from a pool."""

    pool: str = ""
    cidrs: tuple[str, ...] = ()


class Pools(Wire, frozen=True, gc=False):
    """Multi-pool IPAM."""

    allocated: tuple[PoolAllocation, ...] = ()


class Ipam(Wire, frozen=True, gc=False):
    """Address management of a CiliumNode."""

    pod_cidrs: tuple[str, ...] = msgspec.field(name="podCIDRs", default=())
    pools: Pools = Pools()


class CiliumNodeSpec(Wire, frozen=True, gc=False):
    """What a Cilium agent says of its node."""

    addresses: tuple[CiliumAddress, ...] = ()
    bootid: str = ""
    encryption: Key = Key()
    health: Pair = Pair()
    ingress: Pair = Pair()
    ipam: Ipam = Ipam()


class CiliumNode(Wire, frozen=True, gc=False):
    """cilium.io/v2 CiliumNode."""

    metadata: Meta
    spec: CiliumNodeSpec = CiliumNodeSpec()


class CiliumIdentity(Wire, frozen=True, gc=False):
    """cilium.io/v2 CiliumIdentity; its name is its number."""

    metadata: Meta
    security_labels: dict[str, str] = msgspec.field(name="security-labels", default_factory=dict)


class EndpointIdentity(Wire, frozen=True, gc=False):
    """The identity of an endpoint: an int64 of which 32 bits are told."""

    id: int = 0


class Networking(Wire, frozen=True, gc=False):
    """Addresses of an endpoint and its node's."""

    addressing: tuple[Pair, ...] = ()
    node: str = ""


class EndpointStatus(Wire, frozen=True, gc=False):
    """State of a CiliumEndpoint; nothing is exported before it has networking."""

    identity: EndpointIdentity = EndpointIdentity()
    networking: Networking | None = None
    encryption: Key = Key()
    service_account: str = msgspec.field(name="service-account", default="")


class CiliumEndpoint(Wire, frozen=True, gc=False):
    """cilium.io/v2 CiliumEndpoint."""

    metadata: Meta
    status: EndpointStatus = EndpointStatus()


class CoreCiliumEndpoint(msgspec.Struct, frozen=True, gc=False, rename="kebab"):
    """One endpoint inside a CiliumEndpointSlice."""

    name: str = ""
    id: int = 0
    networking: Networking | None = None
    encryption: Key = Key()
    service_account: str = ""


class CiliumEndpointSlice(Wire, frozen=True, gc=False):
    """cilium.io/v2alpha1 CiliumEndpointSlice: many endpoints of one ``namespace``."""

    metadata: Meta
    namespace: str = ""
    endpoints: tuple[CoreCiliumEndpoint, ...] = ()
