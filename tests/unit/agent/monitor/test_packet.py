"""What is read of a captured frame, whatever somebody has sent."""

import random

import pytest

from agent.monitor.packet import Headers, read
from tests.support.bpf_packets import ethernet, icmp, ip, tcp, udp

V4, W4, V6, W6 = "10.1.0.5", "10.2.0.7", "fd00:1::5", "fd00:2::7"


@pytest.mark.parametrize(("source", "target"), [(V4, W4), (V6, W6)])
def test_addresses_and_ports_are_read(source: str, target: str):
    of_udp = read(ethernet(udp(source, target)))
    assert of_udp[:3] == (source, target, "UDP")
    assert of_udp.destination_port > 0
    of_tcp = read(ethernet(tcp(source, target, flags=0x12)))
    assert of_tcp[:3] == (source, target, "TCP")
    assert of_tcp.flags == "SYN ACK"


def test_what_has_no_ports_has_none():
    assert read(ethernet(icmp(V4, W4, 8))) == Headers(V4, W4, "ICMP")
    assert read(ethernet(icmp(V6, W6, 128))) == Headers(V6, W6, "ICMPv6")
    assert read(ethernet(ip(V4, W4, 99, b"payload"))) == Headers(V4, W4, "protocol 99")
    later = read(ethernet(ip(V4, W4, 17, b"later part", fragment=10)))
    assert later == Headers(V4, W4, "UDP")


def test_what_is_not_ip_is_named_by_its_ethertype():
    assert read(ethernet(bytes(28), protocol=0x0806)) == Headers(protocol="ethertype 0x0806")


def test_nothing_makes_it_fail():
    rng = random.Random(20261121)
    whole = [ethernet(tcp(V4, W4, flags=0x02)), ethernet(udp(V6, W6)), ethernet(icmp(V4, W4, 8))]
    for frame in whole:
        for size in range(len(frame)):
            read(frame[:size])
    for _ in range(5000):
        frame = bytearray(rng.choice(whole))
        for _ in range(rng.randrange(8)):
            frame[rng.randrange(len(frame))] = rng.randrange(256)
        read(bytes(frame[: rng.randrange(len(frame) + 1)]))
