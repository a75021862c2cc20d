"""The addresses, ports and flags of a captured frame, as far as it goes."""

from struct import unpack_from
from typing import Final, NamedTuple

from clustermesh.addresses import spelled

ETHERNET: Final = 14
IPV4, IPV6 = 0x0800, 0x86DD
TCP, UDP = 6, 17
NAMES: Final = {1: "ICMP", TCP: "TCP", UDP: "UDP", 58: "ICMPv6", 132: "SCTP"}
FLAGS: Final = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")


class Headers(NamedTuple):
    """What was read; empty and 0 where the frame is too short or of another kind."""

    source: str = ""
    destination: str = ""
    protocol: str = ""
    source_port: int = 0
    destination_port: int = 0
    flags: str = ""


def read(frame: bytes) -> Headers:
    """Never fails: frames are whatever somebody has sent."""
    if len(frame) < ETHERNET:
        return Headers()
    (kind,) = unpack_from("!H", frame, 12)
    packet = frame[ETHERNET:]
    if kind == IPV4 and len(packet) >= 20 and packet[0] >> 4 == 4:
        later_fragment = unpack_from("!H", packet, 6)[0] & 0x1FFF
        start = len(packet) if later_fragment else (packet[0] & 15) * 4
        ends = spelled(packet[12:16]), spelled(packet[16:20])
        return _transport(*ends, packet[9], packet[start:])
    if kind == IPV6 and len(packet) >= 40 and packet[0] >> 4 == 6:
        ends = spelled(packet[8:24]), spelled(packet[24:40])
        return _transport(*ends, packet[6], packet[40:])
    return Headers(protocol=f"ethertype 0x{kind:04x}")


def _transport(source: str, destination: str, number: int, segment: bytes) -> Headers:
    name = NAMES.get(number, f"protocol {number}")
    if number not in (TCP, UDP) or len(segment) < 4:
        return Headers(source, destination, name)
    source_port, destination_port = unpack_from("!HH", segment)
    bits = segment[13] if number == TCP and len(segment) > 13 else 0
    flags = " ".join(flag for at, flag in enumerate(FLAGS) if bits >> at & 1)
    return Headers(source, destination, name, source_port, destination_port, flags)
