"""What the load-balancer's maps hold, as frozen values: more twins of bpf/src/include/layout.h.

One class serves both families: addresses are 4 or 16 network bytes, and so are told apart. Ports,
counts and ids are plain numbers here; `rev_nat` is written in network order everywhere. Contract
datapath 1.3 to 1.9 and 1.17.
"""

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from struct import Struct
from typing import ClassVar, Final, Self

MAX_AFFINITY_TIMEOUT: Final = 0xFFFFFF


class ServiceFlag(IntFlag):
    """The 16 flag bits of a service entry. Contract 1.3."""

    EXTERNAL_IP = 0x0001
    NODE_PORT = 0x0002
    EXT_LOCAL = 0x0004
    HOST_PORT = 0x0008
    SESSION_AFFINITY = 0x0010
    LOAD_BALANCER = 0x0020
    ROUTABLE = 0x0040
    SOURCE_RANGE = 0x0080
    LOCAL_REDIRECT = 0x0100
    NAT_46X64 = 0x0200
    L7_LB = 0x0400
    LOOPBACK_HOST_PORT = 0x0800
    INT_LOCAL = 0x1000
    TWO_SCOPES = 0x2000
    QUARANTINED = 0x4000


class BackendState(IntEnum):
    """Contract 1.4."""

    ACTIVE = 0
    TERMINATING = 1
    QUARANTINED = 2
    MAINTENANCE = 3


def _by_length(four: Struct, sixteen: Struct, raw: bytes) -> Struct:
    return four if len(raw) == four.size else sixteen


def _port(number: int) -> bytes:
    return number.to_bytes(2, "big")


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, "big")


@dataclass(frozen=True, slots=True, order=True)
class ServiceKey:
    """A frontend, and which of its slots; slot 0 is the master. Contract 1.3."""

    address: bytes
    port: int
    proto: int
    slot: int = 0
    scope: int = 0

    C_NAMES: ClassVar[tuple[str, str]] = ("lb4_key", "lb6_key")
    FORMATS: ClassVar[tuple[Struct, Struct]] = (Struct("<4s2sHBBxx"), Struct("<16s2sHBBxx"))

    def pack(self) -> bytes:
        packer = self.FORMATS[len(self.address) == 16]
        return packer.pack(self.address, _port(self.port), self.slot, self.proto, self.scope)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        address, port, slot, proto, scope = _by_length(*cls.FORMATS, raw).unpack(raw)
        return cls(address, _number(port), proto, slot, scope)


@dataclass(frozen=True, slots=True, order=True)
class ServiceValue:
    """Slot n names a backend; the master has counts, flags and the affinity timeout. Contract 1.3.

    `backend_or_timeout` is the union: a backend id in slot n, seconds of affinity in slot 0.
    """

    backend_or_timeout: int
    count: int
    rev_nat: int
    flags: int = 0
    qcount: int = 0

    C_NAME: ClassVar[str] = "lb_service"
    FORMAT: ClassVar[Struct] = Struct("<IH2sHH")

    def pack(self) -> bytes:
        return self.FORMAT.pack(
            self.backend_or_timeout, self.count, _port(self.rev_nat), self.flags, self.qcount
        )

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        union, count, rev_nat, flags, qcount = cls.FORMAT.unpack(raw)
        return cls(union, count, _number(rev_nat), flags, qcount)


def pack_backend_id(number: int) -> bytes:
    """The key of the backend maps: host order. Contract 1.4."""
    return number.to_bytes(4, "little")


def unpack_backend_id(raw: bytes) -> int:
    return int.from_bytes(raw, "little")


def pack_rev_nat(number: int) -> bytes:
    """The key of the reverse-NAT and selection-table maps: network order. Contract 1.5, 1.8."""
    return number.to_bytes(2, "big")


def unpack_rev_nat(raw: bytes) -> int:
    return int.from_bytes(raw, "big")


@dataclass(frozen=True, slots=True, order=True)
class BackendValue:
    """Where a backend listens and whose it is. Contract 1.4."""

    address: bytes
    port: int
    proto: int
    state: int = BackendState.ACTIVE
    cluster_id: int = 0
    zone: int = 0

    C_NAMES: ClassVar[tuple[str, str]] = ("lb4_backend", "lb6_backend")
    FORMATS: ClassVar[tuple[Struct, Struct]] = (Struct("<4s2sBBHBx"), Struct("<16s2sBBHBx"))

    def pack(self) -> bytes:
        packer = self.FORMATS[len(self.address) == 16]
        port = _port(self.port)
        return packer.pack(self.address, port, self.proto, self.state, self.cluster_id, self.zone)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        address, port, *rest = _by_length(*cls.FORMATS, raw).unpack(raw)
        return cls(address, _number(port), *rest)


@dataclass(frozen=True, slots=True, order=True)
class ReverseNatValue:
    """The frontend that an id stands for. Contract 1.5."""

    address: bytes
    port: int

    C_NAMES: ClassVar[tuple[str, str]] = ("lb4_reverse_nat", "lb6_reverse_nat")
    FORMATS: ClassVar[tuple[Struct, Struct]] = (Struct("<4s2s"), Struct("<16s2s"))

    def pack(self) -> bytes:
        return self.FORMATS[len(self.address) == 16].pack(self.address, _port(self.port))

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        address, port = _by_length(*cls.FORMATS, raw).unpack(raw)
        return cls(address, _number(port))


@dataclass(frozen=True, slots=True, order=True)
class AffinityMatchKey:
    """This backend may still serve the sticky clients of this service. Contract 1.6."""

    backend_id: int
    rev_nat: int

    C_NAME: ClassVar[str] = "lb_affinity_match"
    FORMAT: ClassVar[Struct] = Struct("<I2sxx")

    def pack(self) -> bytes:
        return self.FORMAT.pack(self.backend_id, _port(self.rev_nat))

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        backend_id, rev_nat = cls.FORMAT.unpack(raw)
        return cls(backend_id, _number(rev_nat))


@dataclass(frozen=True, slots=True, order=True)
class AffinityKey:
    """A sticky client: 8 or 16 bytes of its address or its netns cookie. Contract 1.6."""

    client: bytes
    rev_nat: int
    by_cookie: bool

    C_NAMES: ClassVar[tuple[str, str]] = ("lb4_affinity_key", "lb6_affinity_key")
    FORMATS: ClassVar[tuple[Struct, Struct]] = (Struct("<8s2sB5x"), Struct("<16s2sB5x"))

    def pack(self) -> bytes:
        packer = self.FORMATS[len(self.client) == 16]
        return packer.pack(self.client, _port(self.rev_nat), self.by_cookie)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        client, rev_nat, by_cookie = _by_length(*cls.FORMATS, raw).unpack(raw)
        return cls(client, _number(rev_nat), bool(by_cookie & 1))


@dataclass(frozen=True, slots=True, order=True)
class AffinityValue:
    """Seconds of the monotonic clock, and the backend. The data path writes it. Contract 1.6."""

    last_used: int
    backend_id: int

    C_NAME: ClassVar[str] = "lb_affinity_value"
    FORMAT: ClassVar[Struct] = Struct("<QI4x")

    def pack(self) -> bytes:
        return self.FORMAT.pack(self.last_used, self.backend_id)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        return cls(*cls.FORMAT.unpack(raw))


@dataclass(frozen=True, slots=True, order=True)
class ReverseSocketKey:
    """A socket and the backend it talks to. Contract 1.9."""

    cookie: int
    address: bytes
    port: int

    C_NAMES: ClassVar[tuple[str, str]] = ("lb4_reverse_sk_key", "lb6_reverse_sk_key")
    FORMATS: ClassVar[tuple[Struct, Struct]] = (Struct("<Q4s2s2x"), Struct("<Q16s2s6x"))

    def pack(self) -> bytes:
        packer = self.FORMATS[len(self.address) == 16]
        return packer.pack(self.cookie, self.address, _port(self.port))

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        cookie, address, port = _by_length(*cls.FORMATS, raw).unpack(raw)
        return cls(cookie, address, _number(port))


@dataclass(frozen=True, slots=True, order=True)
class ReverseSocketValue:
    """The frontend the application asked for. Contract 1.9."""

    address: bytes
    port: int
    rev_nat: int

    C_NAMES: ClassVar[tuple[str, str]] = ("lb4_reverse_sk_value", "lb6_reverse_sk_value")
    FORMATS: ClassVar[tuple[Struct, Struct]] = (Struct("<4s2s2s"), Struct("<16s2s2s"))

    def pack(self) -> bytes:
        packer = self.FORMATS[len(self.address) == 16]
        return packer.pack(self.address, _port(self.port), _port(self.rev_nat))

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        address, port, rev_nat = _by_length(*cls.FORMATS, raw).unpack(raw)
        return cls(address, _number(port), _number(rev_nat))


@dataclass(frozen=True, slots=True, order=True)
class SourceRangeKey:
    """Clients that a frontend serves, as a prefix of its own bits. Contract 1.7."""

    rev_nat: int
    address: bytes
    prefix: int

    C_NAMES: ClassVar[tuple[str, str]] = ("lb4_source_range", "lb6_source_range")
    FORMATS: ClassVar[tuple[Struct, Struct]] = (Struct("<I2s2x4s"), Struct("<I2s2x16s"))
    STATIC_BITS: ClassVar[int] = 32

    def pack(self) -> bytes:
        packer = self.FORMATS[len(self.address) == 16]
        return packer.pack(self.STATIC_BITS + self.prefix, _port(self.rev_nat), self.address)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        bits, rev_nat, address = _by_length(*cls.FORMATS, raw).unpack(raw)
        return cls(_number(rev_nat), address, bits - cls.STATIC_BITS)


def pack_table(backends: list[int]) -> bytes:
    """A selection table's one value: a backend id per place, host order. Contract 1.8."""
    return Struct(f"<{len(backends)}I").pack(*backends)


def unpack_table(raw: bytes) -> tuple[int, ...]:
    return Struct(f"<{len(raw) // 4}I").unpack(raw)
