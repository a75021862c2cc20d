"""What the overlay's maps hold, as frozen values: the Python twins of bpf/src/include/layout.h.

Addresses are raw network bytes, 4 or 16 of them; the length says the family. Formats: contract
datapath 1.1, 1.2, 1.14 and 1.17. `unpack` takes what the kernel returned, and never fails on an
entry of the right size.
"""

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from struct import Struct
from typing import ClassVar, Final, Self

FAMILY_IPV4: Final = 1
FAMILY_IPV6: Final = 2
_LENGTHS: Final = {FAMILY_IPV4: 4, FAMILY_IPV6: 16}
_FAMILIES: Final = {length: family for family, length in _LENGTHS.items()}

IPCACHE_STATIC_BITS: Final = 32
SKIP_TUNNEL: Final = 1


def family_of(address: bytes) -> int:
    """1 for four bytes, 2 for sixteen; anything else is a ValueError."""
    try:
        return _FAMILIES[len(address)]
    except KeyError:
        raise ValueError(f"an address has 4 or 16 bytes, got {len(address)}") from None


def _address(padded: bytes, family: int) -> bytes:
    return padded[: _LENGTHS.get(family, 16)]


@dataclass(frozen=True, slots=True, order=True)
class TunnelKey:
    """The base address of a node's pod range. Contract 1.1."""

    address: bytes
    cluster_id: int = 0

    C_NAME: ClassVar[str] = "tunnel_key"
    FORMAT: ClassVar[Struct] = Struct("<16sBBH")

    def pack(self) -> bytes:
        return self.FORMAT.pack(self.address, family_of(self.address), 0, self.cluster_id)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        padded, family, _, cluster_id = cls.FORMAT.unpack(raw)
        return cls(_address(padded, family), cluster_id)


@dataclass(frozen=True, slots=True, order=True)
class TunnelValue:
    """The node that has that range, and its IPsec key index. Contract 1.1."""

    address: bytes
    key: int = 0

    C_NAME: ClassVar[str] = "tunnel_value"
    FORMAT: ClassVar[Struct] = Struct("<16sBBH")

    def pack(self) -> bytes:
        return self.FORMAT.pack(self.address, family_of(self.address), self.key, 0)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        padded, family, key, _ = cls.FORMAT.unpack(raw)
        return cls(_address(padded, family), key)


@dataclass(frozen=True, slots=True, order=True)
class IpcacheKey:
    """A prefix of pod or node addresses, host bits zero. Contract 1.2."""

    address: bytes
    prefix: int
    cluster_id: int = 0

    C_NAME: ClassVar[str] = "ipcache_key"
    FORMAT: ClassVar[Struct] = Struct("<IHBB16s")

    @classmethod
    def of(cls, network: IPv4Network | IPv6Network, cluster_id: int = 0) -> Self:
        return cls(network.network_address.packed, network.prefixlen, cluster_id)

    def pack(self) -> bytes:
        family = family_of(self.address)
        prefixlen = IPCACHE_STATIC_BITS + self.prefix
        return self.FORMAT.pack(prefixlen, self.cluster_id, 0, family, self.address)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        prefixlen, cluster_id, _, family, padded = cls.FORMAT.unpack(raw)
        return cls(_address(padded, family), prefixlen - IPCACHE_STATIC_BITS, cluster_id)


@dataclass(frozen=True, slots=True, order=True)
class IpcacheValue:
    """Whose address it is and behind which node; 0.0.0.0: this one or none. Contract 1.2."""

    identity: int
    tunnel_endpoint: bytes = bytes(4)
    key: int = 0
    flags: int = 0

    C_NAME: ClassVar[str] = "ipcache_value"
    FORMAT: ClassVar[Struct] = Struct("<I4sHBB")

    def pack(self) -> bytes:
        return self.FORMAT.pack(self.identity, self.tunnel_endpoint, 0, self.key, self.flags)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        identity, tunnel_endpoint, _, key, flags = cls.FORMAT.unpack(raw)
        return cls(identity, tunnel_endpoint, key, flags)


@dataclass(frozen=True, slots=True, order=True)
class NodeValue:
    """What a node may say over the overlay; the key is its underlay IPv4 address, 4 bytes."""

    cluster_id: int
    identity_low: int
    identity_high: int
    flags: int = 0

    C_NAME: ClassVar[str] = "cm_node"
    FORMAT: ClassVar[Struct] = Struct("<IIII")

    @classmethod
    def of_cluster(cls, cluster_id: int, *, identity_bits: int = 16) -> Self:
        """The identities of one cluster; 15 bits in a mesh of 511 clusters. Contract 1.15."""
        low = cluster_id << identity_bits
        return cls(cluster_id, max(low, 256), low + (1 << identity_bits) - 1)

    def pack(self) -> bytes:
        return self.FORMAT.pack(self.cluster_id, self.identity_low, self.identity_high, self.flags)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        return cls(*cls.FORMAT.unpack(raw))


@dataclass(frozen=True, slots=True)
class StateValue:
    """What the agent says about itself. Times are nanoseconds of CLOCK_MONOTONIC."""

    stamp: int = 0
    stale_after: int = 0
    cluster_id: int = 0
    table_size: int = 0
    mss: int = 0
    flags: int = 0

    C_NAME: ClassVar[str] = "cm_state"
    FORMAT: ClassVar[Struct] = Struct("<QQIIII")

    def pack(self) -> bytes:
        return self.FORMAT.pack(
            self.stamp, self.stale_after, self.cluster_id, self.table_size, self.mss, self.flags
        )

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        return cls(*cls.FORMAT.unpack(raw))


@dataclass(frozen=True, slots=True, order=True)
class MetricsKey:
    """Why, which way and where a packet or a connection was counted. Contract 1.14."""

    reason: int
    direction: int
    line: int
    file: int

    C_NAME: ClassVar[str] = "metrics_key"
    FORMAT: ClassVar[Struct] = Struct("<BBHBxxx")

    def pack(self) -> bytes:
        return self.FORMAT.pack(self.reason, self.direction, self.line, self.file)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        reason, direction, line, file = cls.FORMAT.unpack(raw)
        return cls(reason, direction & 3, line, file)


@dataclass(frozen=True, slots=True)
class MetricsValue:
    """One CPU's part of a counter: how many, and of how many bytes."""

    count: int
    size: int

    C_NAME: ClassVar[str] = "metrics_value"
    FORMAT: ClassVar[Struct] = Struct("<QQ")

    def pack(self) -> bytes:
        return self.FORMAT.pack(self.count, self.size)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        return cls(*cls.FORMAT.unpack(raw))
