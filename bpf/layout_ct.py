"""What the connection tables hold: twins of the structs in bpf/src/include/lb_maps.h.

Contract datapath 1.13. One class serves both families: addresses are 4 or 16 network bytes.
"""

from dataclasses import dataclass
from enum import IntFlag
from struct import Struct
from typing import ClassVar, Final, Self

SERVICE: Final = 4
"""Flag of a tuple that leads from a client and a service to the backend."""
OUT: Final = 0
"""Flag of a tuple by which a backend's answer is recognised."""


class ConnectionBits(IntFlag):
    """What is known about a connection. Contract 1.13."""

    RX_CLOSING = 1 << 0
    TX_CLOSING = 1 << 1
    LOOPBACK = 1 << 3
    SEEN_NON_SYN = 1 << 4
    NODE_PORT = 1 << 5


@dataclass(frozen=True, slots=True, order=True)
class ConnectionKey:
    """Addresses and ports in the contract's order, which is not a packet's."""

    daddr: bytes
    saddr: bytes
    dport: int
    sport: int
    nexthdr: int
    flags: int

    C_NAMES: ClassVar[tuple[str, str]] = ("ct4_tuple", "ct6_tuple")
    FORMATS: ClassVar[tuple[Struct, Struct]] = (Struct(">4s4sHHBB"), Struct(">16s16sHHBB"))

    def pack(self) -> bytes:
        packer = self.FORMATS[len(self.daddr) == 16]
        return packer.pack(self.daddr, self.saddr, self.dport, self.sport, self.nexthdr, self.flags)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        four, sixteen = cls.FORMATS
        return cls(*(four if len(raw) == four.size else sixteen).unpack(raw))


@dataclass(frozen=True, slots=True)
class ConnectionValue:
    """`lifetime` and the reports are seconds of the monotonic clock; the agent deletes what has
    outlived it. `named` is the backend's id (service entries) or the address that was named (node
    ports), 16 bytes. In `source_identity` ours have the client's port on the entry's other side, in
    network order, where it is another one."""

    named: bytes
    packets: int
    size: int
    lifetime: int
    bits: ConnectionBits
    rev_nat: int
    ifindex: int = 0
    tx_flags: int = 0
    rx_flags: int = 0
    source_identity: int = 0
    last_tx_report: int = 0
    last_rx_report: int = 0

    C_NAME: ClassVar[str] = "ct_entry"
    FORMAT: ClassVar[Struct] = Struct("<16sQQIH2sHBBIII")

    @property
    def backend_id(self) -> int:
        return int.from_bytes(self.named[8:], "little")

    def pack(self) -> bytes:
        return self.FORMAT.pack(
            self.named,
            self.packets,
            self.size,
            self.lifetime,
            self.bits,
            self.rev_nat.to_bytes(2, "big"),
            self.ifindex,
            self.tx_flags,
            self.rx_flags,
            self.source_identity,
            self.last_tx_report,
            self.last_rx_report,
        )

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        named, packets, size, lifetime, bits, rev_nat, *rest = cls.FORMAT.unpack(raw)
        number = int.from_bytes(rev_nat, "big")
        return cls(named, packets, size, lifetime, ConnectionBits(bits), number, *rest)


LIFETIME: Final = Struct("<32xI20x")
"""Only that of a value."""
