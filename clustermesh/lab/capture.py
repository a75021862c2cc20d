"""Listen on the underlay: VXLAN packets as they pass a bridge port, parsed from raw frames."""

import ipaddress
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from clustermesh.lab import host

VXLAN_PORT = 8472
VNI_VALID = 0x08
ETH_P_ALL = 0x0003
ETHERTYPES = {0x0800: 4, 0x86DD: 6}
UDP, TCP, ICMP, ICMP6 = 17, 6, 1, 58
PROTOCOLS = {UDP: "UDP", TCP: "TCP", ICMP: "ICMP", ICMP6: "ICMPv6"}
ETHERNET, UDP_HEADER, VXLAN_HEADER = 14, 8, 8


class Packet(NamedTuple):
    """One packet of the overlay; ports are 0 where the protocol has none."""

    outer_source: str
    outer_destination: str
    vni: int
    source: str
    destination: str
    protocol: str
    source_port: int
    destination_port: int


class _Datagram(NamedTuple):
    source: str
    destination: str
    protocol: int
    payload: bytes


def parse(frame: bytes, *, port: int = VXLAN_PORT) -> Packet | None:
    """A frame of the underlay as a packet of the overlay; None when it is none."""
    outer = _datagram(frame)
    if outer is None or outer.protocol != UDP or len(outer.payload) < UDP_HEADER + VXLAN_HEADER:
        return None
    if struct.unpack_from("!H", outer.payload, 2)[0] != port:
        return None
    flags, vni = _vxlan(outer.payload[UDP_HEADER : UDP_HEADER + VXLAN_HEADER])
    inner = _datagram(outer.payload[UDP_HEADER + VXLAN_HEADER :])
    if not flags & VNI_VALID or inner is None:
        return None
    ports = (0, 0)
    if inner.protocol in (UDP, TCP) and len(inner.payload) >= 4:
        ports = struct.unpack_from("!HH", inner.payload)
    return Packet(
        outer.source,
        outer.destination,
        vni,
        inner.source,
        inner.destination,
        PROTOCOLS.get(inner.protocol, str(inner.protocol)),
        *ports,
    )


class Capture:
    """A socket that sees every frame of a namespace's links."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener

    def packets(self, seconds: float) -> Iterator[Packet]:
        """What passes within the time; each packet once for every link it crosses."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            readable, _, _ = select.select([self._listener], [], [], left)
            if readable:
                packet = parse(self._listener.recv(65536))
                if packet is not None:
                    yield packet


@contextmanager
def capturing(netns: str) -> Iterator[Capture]:
    """Listen in a namespace until the block ends; frames wait in the socket's buffer."""
    with host.inside(netns):
        listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        yield Capture(listener)


def _vxlan(header: bytes) -> tuple[int, int]:
    """Flags and the 24 bits of the VNI (RFC 7348)."""
    return header[0], int.from_bytes(header[4:7], "big")


def _datagram(frame: bytes) -> _Datagram | None:
    """The IP packet in an Ethernet frame, without IPv4 options or IPv6 extension headers."""
    if len(frame) < ETHERNET:
        return None
    version = ETHERTYPES.get(struct.unpack_from("!H", frame, 12)[0])
    body = frame[ETHERNET:]
    if version == 4 and len(body) >= 20:
        length = (body[0] & 0x0F) * 4
        return _Datagram(_ip(body[12:16]), _ip(body[16:20]), body[9], body[length:])
    if version == 6 and len(body) >= 40:
        return _Datagram(_ip(body[8:24]), _ip(body[24:40]), body[6], body[40:])
    return None


def _ip(address: bytes) -> str:
    return str(ipaddress.ip_address(address))
