"""What leaves by the overlay, packet by packet: bytes in, verdict, bytes and counters out."""

import os
from struct import unpack_from

import pytest

from bpf import syscalls
from bpf.layout import IpcacheKey, IpcacheValue
from tests.support.bpf import counted
from tests.support.bpf_packets import (
    ETHERNET,
    ICMP,
    ICMPV6,
    addresses,
    assert_sound,
    checksum,
    ethernet,
    header_size,
    icmp,
    ip,
    mss_of,
    packed,
    protocol_of,
    tcp,
    udp,
)

pytestmark = pytest.mark.root

NEXT, SHOT, REDIRECT = -1, 2, 7
POD4, REMOTE4, UNKNOWN4 = "10.1.0.5", "10.2.0.7", "10.9.0.9"
POD6, REMOTE6, UNKNOWN6 = "fd00:1::5", "fd00:2::7", "fd00:9::9"
NODE = packed("192.168.1.3")
FORWARDED, INVALID, NOT_IP, UNROUTABLE, NO_ENDPOINT = 0, 134, 139, 151, 160
PLAIN, UNKNOWN_SOURCE, UNSENDABLE, ANSWERED = 1, 2, 3, 4


def ipcache(address: str, identity: int, endpoint: bytes = bytes(4)) -> tuple[bytes, bytes]:
    raw = packed(address)
    return IpcacheKey(raw, len(raw) * 8).pack(), IpcacheValue(identity, endpoint).pack()


@pytest.fixture
def overlay(datapath, root):
    """Runs the egress program; two pods and one remote pod of each family are known."""
    datapath.maps.ipcache.put_many(
        [
            ipcache(POD4, 0x10009),
            ipcache(POD6, 0x10009),
            ipcache(REMOTE4, 0x20007, NODE),
            ipcache(REMOTE6, 0x20007, NODE),
        ]
    )
    fd = syscalls.open_pin(next((root / "programs").iterdir()) / "cm_to_overlay")

    def run(packet: bytes) -> tuple[int, bytes]:
        verdict, out, _ = syscalls.run_program(fd, packet)
        return verdict, out

    yield run
    os.close(fd)


def counts(datapath) -> dict[tuple[int, int], int]:
    """(reason, line) to how often."""
    return {
        (raw[0], int.from_bytes(raw[2:4], "little")): count
        for raw, (count, _) in datapath.maps.metrics.read().items()
    }


@pytest.mark.parametrize(
    "packet",
    [
        udp(POD4, REMOTE4),
        tcp(POD4, REMOTE4),
        icmp(POD4, REMOTE4, 8),
        udp(POD6, REMOTE6),
        tcp(POD6, REMOTE6),
        icmp(POD6, REMOTE6, 128),
        ip(POD4, REMOTE4, 17, b"later part", fragment=10),
        ip(POD4, REMOTE4, 17, b"with options", options=b"\1\1\1\0"),
    ],
)
def test_a_packet_to_a_known_pod_goes_out_unchanged(overlay, datapath, packet):
    assert overlay(ethernet(packet)) == (NEXT, ethernet(packet))
    assert counts(datapath) == {(FORWARDED, PLAIN): 1}
    assert list(datapath.maps.metrics.read().values()) == [(1, len(ethernet(packet)))]


@pytest.mark.parametrize(
    ("identity", "line"),
    [
        (0x10009, PLAIN),
        (1, PLAIN),
        (9, PLAIN),
        (0x1000001, UNSENDABLE),
        (0, UNKNOWN_SOURCE),
    ],
)
def test_what_a_source_is_sent_as_is_counted(overlay, datapath, identity, line):
    datapath.maps.ipcache.put_many([ipcache(POD4, identity)])
    assert overlay(ethernet(udp(POD4, REMOTE4)))[0] == NEXT
    assert counts(datapath) == {(FORWARDED, line): 1}


def test_a_source_that_is_not_known_yet_is_sent_and_counted(overlay, datapath):
    assert overlay(ethernet(udp("10.1.0.77", REMOTE4)))[0] == NEXT
    assert counts(datapath) == {(FORWARDED, UNKNOWN_SOURCE): 1}


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (ethernet(bytes(28), protocol=0x0806), NOT_IP),
        (ethernet(bytes(60), protocol=0x88CC), NOT_IP),
        (ethernet(b"\x65" + udp(POD4, REMOTE4)[1:], protocol=0x0800), INVALID),
        (ethernet(b"\x44" + udp(POD4, REMOTE4)[1:]), INVALID),
        (ethernet(b"\x45" + udp(POD6, REMOTE6)[1:], protocol=0x86DD), INVALID),
        (ethernet(udp(POD4, "224.0.0.1")), UNROUTABLE),
        (ethernet(udp(POD4, "255.255.255.255")), UNROUTABLE),
        (ethernet(udp(POD6, "ff02::2")), UNROUTABLE),
        (ethernet(udp(POD6, "fe80::7")), UNROUTABLE),
        (ethernet(udp(POD4, "127.0.0.1")), UNROUTABLE),
        (ethernet(udp("127.0.0.1", REMOTE4)), UNROUTABLE),
        (ethernet(udp("0.0.0.0", REMOTE4)), UNROUTABLE),  # noqa: S104  # an address in a packet
        (ethernet(udp("224.0.0.1", REMOTE4)), UNROUTABLE),
        (ethernet(udp(POD6, "::1")), UNROUTABLE),
        (ethernet(udp("::", REMOTE6)), UNROUTABLE),
        (ethernet(udp("fe80::7", REMOTE6)), UNROUTABLE),
        (ethernet(icmp(POD4, UNKNOWN4, 3, 1)), NO_ENDPOINT),
        (ethernet(icmp(POD6, UNKNOWN6, 1, 3)), NO_ENDPOINT),
        (ethernet(ip(POD4, UNKNOWN4, 17, b"later part", fragment=10)), NO_ENDPOINT),
        (ethernet(ip(POD4, UNKNOWN4, 17, b"short")), NO_ENDPOINT),
        (ethernet(udp(POD4, POD4)), None),
    ],
)
def test_what_cannot_be_sent_is_dropped_and_counted(overlay, datapath, frame, reason):
    verdict, _ = overlay(frame)
    if reason is None:  # a pod of this node has no tunnel endpoint: its sender is told
        assert (verdict, counts(datapath)) == (REDIRECT, {(NO_ENDPOINT, ANSWERED): 1})
    else:
        assert (verdict, counts(datapath)) == (SHOT, {(reason, PLAIN): 1})


@pytest.mark.parametrize(
    ("packet", "kind", "code"),
    [
        (udp(POD4, UNKNOWN4), 3, 1),
        (tcp(POD4, UNKNOWN4), 3, 1),
        (tcp(POD4, UNKNOWN4, flags=0x10, data=bytes(1400)), 3, 1),
        (icmp(POD4, UNKNOWN4, 8), 3, 1),
        (udp(POD6, UNKNOWN6), 1, 3),
        (tcp(POD6, UNKNOWN6, flags=0x10, data=bytes(1380)), 1, 3),
        (icmp(POD6, UNKNOWN6, 128), 1, 3),
    ],
)
def test_the_sender_of_a_packet_nobody_takes_is_told(overlay, datapath, packet, kind, code):
    verdict, out = overlay(ethernet(packet))
    assert verdict == REDIRECT
    assert counts(datapath) == {(NO_ENDPOINT, ANSWERED): 1}
    answer = out[ETHERNET:]
    assert_sound(answer)
    source, destination = addresses(packet)
    assert addresses(answer) == (destination, source)
    assert protocol_of(answer) == (ICMP if len(source) == 4 else ICMPV6)
    message = answer[header_size(answer) :]
    assert (message[0], message[1]) == (kind, code)
    assert message[8:] == packet[: header_size(packet) + 8]


def test_a_flood_is_not_answered_by_a_flood(overlay, datapath):
    verdicts = [overlay(ethernet(udp(POD4, UNKNOWN4)))[0] for _ in range(2000)]
    assert set(verdicts) == {REDIRECT, SHOT}
    assert counts(datapath) == {
        (NO_ENDPOINT, ANSWERED): verdicts.count(REDIRECT),
        (NO_ENDPOINT, PLAIN): verdicts.count(SHOT),
    }


MSS_1460 = b"\x02\x04\x05\xb4"
WINDOW_SCALE = b"\x03\x03\x07"


@pytest.mark.parametrize(
    ("options", "limit", "expected"),
    [
        (MSS_1460, 1410, 1410),
        (MSS_1460, 0, 1460),
        (MSS_1460, 1460, 1460),
        (MSS_1460, 9000, 1460),
        (b"\1" + MSS_1460 + b"\1\1\1", 1410, 1410),
        (WINDOW_SCALE + MSS_1460 + b"\0", 1410, 1410),
        (b"\1\1\4\2" + MSS_1460, 1410, 1410),
        (b"\1\1\1\0" + b"\0\0\0\0", 1410, None),
        (b"", 1410, None),
        (b"\x08\x00\0\0", 1410, None),
        (b"\x1e\x02" + b"\1" * 33 + MSS_1460 + b"\0", 1410, 1410),
    ],
)
@pytest.mark.parametrize(("source", "target"), [(POD4, REMOTE4), (POD6, REMOTE6)])
def test_a_handshake_promises_no_more_than_the_overlay_carries(
    overlay, datapath, source, target, options, limit, expected
):
    excess = 20 if ":" in source else 0
    datapath.state.configure(mss=limit + excess if limit else 0)
    sent = tcp(source, target, options=options)
    verdict, out = overlay(ethernet(sent))
    assert verdict == NEXT
    assert_sound(out[ETHERNET:])
    if expected is not None:
        assert mss_of(out[ETHERNET:]) == expected
    changed = [at for at, (a, b) in enumerate(zip(ethernet(sent), out, strict=True)) if a != b]
    assert len(changed) <= 4


@pytest.mark.parametrize("flags", [0x10, 0x18, 0x04, 0x11])
def test_segments_after_the_handshake_are_left_alone(overlay, datapath, flags):
    datapath.state.configure(mss=1000)
    sent = ethernet(tcp(POD4, REMOTE4, flags=flags, options=MSS_1460))
    assert overlay(sent) == (NEXT, sent)


def test_a_handshake_cut_short_is_left_alone(overlay, datapath):
    datapath.state.configure(mss=1000)
    whole = tcp(POD4, REMOTE4, options=MSS_1460)
    for size in range(20, len(whole)):
        sent = ethernet(whole[:size])
        assert overlay(sent) == (NEXT, sent)


def test_the_longest_prefix_decides_the_node(overlay, datapath):
    wide = IpcacheKey(packed("10.9.0.0"), 16).pack()
    datapath.maps.ipcache.put_many([(wide, IpcacheValue(2, NODE).pack())])
    assert overlay(ethernet(udp(POD4, UNKNOWN4)))[0] == NEXT
    hole = ipcache(UNKNOWN4, 0x20008)
    datapath.maps.ipcache.put_many([hole])
    assert overlay(ethernet(udp(POD4, UNKNOWN4)))[0] == REDIRECT
    assert counted(datapath.maps.metrics.read(), NO_ENDPOINT) == 1


def test_the_checker_of_packets_sees_a_wrong_checksum():
    packet = udp(POD4, REMOTE4)
    assert checksum(packet[:20]) == 0
    broken = packet[:10] + bytes([packet[10] ^ 1]) + packet[11:]
    with pytest.raises(AssertionError):
        assert_sound(broken)
    assert unpack_from("!H", packet, 2)[0] == len(packet)
