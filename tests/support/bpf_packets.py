"""Packets as bytes, and what must be true of them: just enough of IPv4, IPv6, TCP, UDP and ICMP."""

from ipaddress import ip_address
from struct import pack, unpack_from

ETHERNET = 14
TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
FRAGMENT_HEADER = 44


def checksum(data: bytes) -> int:
    """The internet checksum; 0 over data that contains a right one."""
    padded = data + b"\0" * (len(data) % 2)
    total = sum(unpack_from(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packed(address: str) -> bytes:
    return ip_address(address).packed


def ethernet(payload: bytes, *, protocol: int | None = None) -> bytes:
    kind = protocol if protocol is not None else (0x0800 if payload[0] >> 4 == 4 else 0x86DD)
    return bytes([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]) + pack("!H", kind) + payload


def _pseudo(source: bytes, destination: bytes, protocol: int, length: int) -> bytes:
    if len(source) == 4:
        return source + destination + pack("!BBH", 0, protocol, length)
    return source + destination + pack("!II", length, protocol)


def ip(
    source: str,
    destination: str,
    protocol: int,
    payload: bytes,
    *,
    fragment: int = 0,
    options: bytes = b"",
) -> bytes:
    """A packet of whichever family the addresses are."""
    a, b = packed(source), packed(destination)
    if len(a) == 16:
        return pack("!IHBB", 6 << 28, len(payload), protocol, 64) + a + b + payload
    words = 5 + len(options) // 4
    head = pack(
        "!BBHHHBBH", 0x40 | words, 0, words * 4 + len(payload), 7, fragment, 64, protocol, 0
    )
    total = checksum(head + a + b + options)
    return head[:10] + pack("!H", total) + a + b + options + payload


def tcp(
    source: str, destination: str, *, flags: int = 0x02, options: bytes = b"", data: bytes = b""
) -> bytes:
    """A segment from port 40000 to 80, in its packet."""
    words = 5 + len(options) // 4
    segment = pack("!HHIIBBHHH", 40000, 80, 1, 0, words << 4, flags, 1024, 0, 0) + options + data
    total = checksum(_pseudo(packed(source), packed(destination), TCP, len(segment)) + segment)
    return ip(source, destination, TCP, segment[:16] + pack("!H", total) + segment[18:])


def udp(source: str, destination: str, *, data: bytes = b"hello") -> bytes:
    datagram = pack("!HHHH", 40000, 53, 8 + len(data), 0) + data
    total = checksum(_pseudo(packed(source), packed(destination), UDP, len(datagram)) + datagram)
    return ip(source, destination, UDP, datagram[:6] + pack("!H", total) + datagram[8:])


def icmp(source: str, destination: str, kind: int, code: int = 0, rest: bytes = bytes(4)) -> bytes:
    a, b = packed(source), packed(destination)
    protocol = ICMP if len(a) == 4 else ICMPV6
    message = pack("!BBH", kind, code, 0) + rest + b"payload!"
    covered = message if len(a) == 4 else _pseudo(a, b, ICMPV6, len(message)) + message
    return ip(
        source, destination, protocol, message[:2] + pack("!H", checksum(covered)) + message[4:]
    )


def header_size(packet: bytes) -> int:
    """Of the IP header at the start."""
    return (packet[0] & 15) * 4 if packet[0] >> 4 == 4 else 40


def addresses(packet: bytes) -> tuple[bytes, bytes]:
    """Source and destination."""
    if packet[0] >> 4 == 4:
        return packet[12:16], packet[16:20]
    return packet[8:24], packet[24:40]


def protocol_of(packet: bytes) -> int:
    return packet[9] if packet[0] >> 4 == 4 else packet[6]


def assert_sound(packet: bytes) -> None:
    """Lengths and checksums of an IP packet and of the transport in it are right."""
    size = header_size(packet)
    source, destination = addresses(packet)
    payload, protocol = packet[size:], protocol_of(packet)
    if len(source) == 4:
        assert unpack_from("!H", packet, 2)[0] == len(packet)
        assert checksum(packet[:size]) == 0
    else:
        assert unpack_from("!H", packet, 4)[0] == len(payload)
    if protocol == ICMP:
        assert checksum(payload) == 0
    else:
        assert checksum(_pseudo(source, destination, protocol, len(payload)) + payload) == 0


def part6(whole: bytes, *, start: int, end: int | None = None) -> bytes:
    """A part of an IPv6 packet: what is behind its header, from `start` to `end` or to the last."""
    payload, more = whole[40:][start:end], end is not None
    head = pack("!BBHI", protocol_of(whole), 0, start | more, 0x01020304)
    size = pack("!HB", len(head) + len(payload), FRAGMENT_HEADER)
    return whole[:4] + size + whole[7:40] + head + payload


def mss_of(packet: bytes) -> int | None:
    """The promise in a TCP handshake."""
    segment = packet[header_size(packet) :]
    options = segment[20 : (segment[12] >> 4) * 4]
    at = 0
    while at < len(options) and options[at] != 0:
        if options[at] == 1:
            at += 1
            continue
        if options[at] == 2:
            return int(unpack_from("!H", options, at + 2)[0])
        at += options[at + 1]
    return None
