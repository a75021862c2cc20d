"""Frames of the underlay as packets of the overlay."""

import socket
import struct

import pytest

from clustermesh.lab.capture import Packet, parse


def ethernet(payload: bytes, *, kind: int = 0x0800) -> bytes:
    return bytes(12) + struct.pack("!H", kind) + payload


def ipv4(
    source: str, destination: str, protocol: int, payload: bytes, options: bytes = b""
) -> bytes:
    head = bytearray(20)
    head[0] = 0x40 | (20 + len(options)) // 4
    head[9] = protocol
    head[12:16], head[16:20] = socket.inet_aton(source), socket.inet_aton(destination)
    return bytes(head) + options + payload


def ipv6(source: str, destination: str, protocol: int, payload: bytes) -> bytes:
    ends = [socket.inet_pton(socket.AF_INET6, end) for end in (source, destination)]
    return bytes([0x60, 0, 0, 0, 0, 0, protocol, 64]) + b"".join(ends) + payload


def udp(port: int, payload: bytes, source: int = 40000) -> bytes:
    return struct.pack("!HHHH", source, port, 8 + len(payload), 0) + payload


def vxlan(vni: int, frame: bytes, flags: int = 0x08) -> bytes:
    return bytes([flags, 0, 0, 0]) + vni.to_bytes(3, "big") + b"\0" + frame


INNER = ethernet(ipv4("10.1.1.11", "10.2.1.10", 6, struct.pack("!HH", 50000, 8080) + bytes(16)))


def outer(payload: bytes, port: int = 8472) -> bytes:
    return ethernet(ipv4("172.30.1.11", "172.30.2.11", 17, udp(port, payload)))


def test_a_packet_tells_its_vni_and_both_pairs_of_addresses():
    assert parse(outer(vxlan(0x010009, INNER))) == Packet(
        "172.30.1.11", "172.30.2.11", 0x010009, "10.1.1.11", "10.2.1.10", "TCP", 50000, 8080
    )


def test_inner_ipv6_is_understood():
    inner = ethernet(ipv6("fd00::1", "fd00::2", 17, udp(53, b"", source=7)), kind=0x86DD)
    packet = parse(outer(vxlan(0x020007, inner)))
    assert packet is not None
    assert packet[3:] == ("fd00::1", "fd00::2", "UDP", 7, 53)


def test_options_of_the_outer_header_are_skipped():
    body = udp(8472, vxlan(5, INNER))
    frame = ethernet(ipv4("172.30.1.11", "172.30.2.11", 17, body, options=bytes(8)))
    packet = parse(frame)
    assert packet is not None
    assert packet.vni == 5


def test_a_protocol_without_ports_has_none():
    inner = ethernet(ipv4("10.1.1.11", "10.2.1.10", 1, bytes(8)))
    packet = parse(outer(vxlan(1, inner)))
    assert packet is not None
    assert packet[5:] == ("ICMP", 0, 0)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        INNER,
        outer(vxlan(7, INNER), port=4789),
        outer(vxlan(7, INNER, flags=0)),
        outer(b""),
        outer(vxlan(7, b"")),
        ethernet(bytes(10)),
        ethernet(bytes(40), kind=0x0806),
    ],
)
def test_what_is_no_packet_of_the_overlay_is_passed_over(frame: bytes):
    assert parse(frame) is None


@pytest.mark.parametrize("length", range(len(outer(vxlan(7, INNER)))))
def test_a_frame_cut_short_never_fails(length: int):
    parse(outer(vxlan(7, INNER))[:length])
