"""Pods behind nodes: large packets find the way through a smaller overlay, in both families."""

import ctypes
import errno
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from bpf.counters import Direction, Reason
from tests.support.bpf_nodes import PORT, Node, arrives, family_of, listen, say, two_nodes
from tests.support.bpf_packets import assert_sound, mss_of

pytestmark = pytest.mark.root

AMOUNT = 10 * 1024 * 1024
IP_MTU, IPV6_MTU, IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, DO = 14, 24, 10, 23, 2


@pytest.fixture
def nodes(tmp_path: Path):
    """Pods with jumbo frames over an underlay without."""
    with two_nodes(tmp_path, pod_mtu=9001) as pair:
        yield pair


FAMILIES = pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])


def transfer(sender: Node, receiver: Node, *, v6: bool, amount: int = AMOUNT) -> int:
    """Sends that much from pod to pod; how many bytes arrived."""
    source, target = (sender.pod6, receiver.pod6) if v6 else (sender.pod4, receiver.pod4)
    server = receiver.run_pod(lambda: listen(target, socket.SOCK_STREAM))
    client = sender.run_pod(lambda: say(source, target, socket.SOCK_STREAM))
    received = 0
    with server, server.accept()[0] as accepted:
        accepted.settimeout(20)

        def send() -> None:
            with client:
                client.settimeout(20)
                client.sendall(bytes(amount))

        thread = threading.Thread(target=send)
        thread.start()
        while data := accepted.recv(1 << 20):
            received += len(data)
        thread.join()
    return received - len(b"over the mesh")


@FAMILIES
@pytest.mark.parametrize("mss", [0, 1410], ids=["path-mtu", "clamped"])
def test_a_pod_with_jumbo_frames_transfers_ten_megabytes(nodes, v6, mss):
    one, two = nodes
    for node in nodes:
        node.datapath.state.configure(mss=mss)
    assert transfer(one, two, v6=v6) == AMOUNT
    assert transfer(two, one, v6=v6) == AMOUNT


@FAMILIES
def test_a_datagram_that_does_not_fit_is_answered_with_the_size_that_does(nodes, v6):
    one, two = nodes
    target = two.pod6 if v6 else two.pod4
    level = socket.IPPROTO_IPV6 if v6 else socket.IPPROTO_IP
    discover, mtu = (IPV6_MTU_DISCOVER, IPV6_MTU) if v6 else (IP_MTU_DISCOVER, IP_MTU)

    def probe() -> int:
        with socket.socket(family_of(target), socket.SOCK_DGRAM) as client:
            client.settimeout(10)
            client.setsockopt(level, discover, DO)
            client.connect((target, PORT))
            client.send(bytes(4000))  # fits the pod's own device, and is answered by the node
            with pytest.raises(OSError, match="Message too long"):
                client.send(bytes(4000))
            return client.getsockopt(level, mtu)

    assert one.run_pod(probe) == 1450


@FAMILIES
def test_a_datagram_in_parts_arrives_whole(nodes, v6):
    one, two = nodes
    source, target = (one.pod6, two.pod6) if v6 else (one.pod4, two.pod4)
    data = os.urandom(20_000)
    server = two.run_pod(lambda: listen(target, socket.SOCK_DGRAM))

    def send() -> socket.socket:
        client = socket.socket(family_of(target), socket.SOCK_DGRAM)
        client.bind((source, 0))
        client.connect((target, PORT))
        return client

    with server, one.run_pod(send) as client:
        server.settimeout(0.3)
        for _ in range(40):  # the first ones may only teach the pod how large a part may be
            try:
                client.send(data)
                assert server.recv(30_000) == data
                break
            except OSError as error:
                if not isinstance(error, TimeoutError) and error.errno != errno.EMSGSIZE:
                    raise
        else:
            pytest.fail("no datagram of 40 arrived")
    assert one.counted(Reason.FORWARDED) >= 14  # parts of at most 1450


@FAMILIES
@pytest.mark.parametrize("mss", [0, 1000], ids=["path-mtu", "clamped"])
def test_large_segments_cross_the_overlay_in_one_piece(nodes, v6, mss):
    """Segmentation is left to the wire: a packet of the stack's is a packet of ours."""
    one, two = nodes
    for node in nodes:
        node.datapath.state.configure(mss=mss)
    assert transfer(one, two, v6=v6) == AMOUNT
    sizes = [
        (count, size)
        for raw, (count, size) in one.datapath.maps.metrics.read().items()
        if (raw[0], raw[1]) == (Reason.FORWARDED, Direction.EGRESS)
    ]
    ((count, size),) = sizes
    assert size / count > 3 * 1450, "segmented before the overlay"


ETHTOOL = 0x8946
TURN_OFF = (0x17, 0x1F, 0x24, 0x2C)  # ETHTOOL_STXCSUM, _STSO, _SGSO, _SGRO
PACKET_ALL, OUTER = 0x0003, 14 + 20 + 8 + 8


def turn_off_offloads(device: str) -> None:
    """What leaves by the device is segmented and summed by then."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for command in TURN_OFF:
            value = ctypes.create_string_buffer(struct.pack("=II", command, 0), 8)
            request = struct.pack("=16sQ16x", device.encode(), ctypes.addressof(value))
            fcntl.ioctl(any_socket, ETHTOOL, request)


@contextmanager
def sniffed(node: Node) -> Iterator[list[bytes]]:
    """Packets that came out of the tunnel on the node's wire meanwhile."""
    kind = socket.htons(PACKET_ALL)
    sniffer = node.run(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, kind))
    inner: list[bytes] = []
    with sniffer:
        sniffer.setsockopt(socket.SOL_SOCKET, 33, 32 << 20)  # SO_RCVBUFFORCE
        sniffer.bind(("wire", 0))
        sniffer.setblocking(False)
        yield inner
        with suppress(BlockingIOError):
            while True:
                frame, (_, _, direction, *_) = sniffer.recvfrom(65536)
                vxlan = frame[12:14] == b"\x08\x00" and frame[36:38] == b"\x21\x18"
                if vxlan and direction == 0:
                    inner.append(frame[OUTER + 14 :])


@FAMILIES
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
@pytest.mark.parametrize("mss", [0, 1000], ids=["path-mtu", "clamped"])
def test_every_packet_on_the_wire_has_right_checksums(nodes, v6, kind, mss):
    one, two = nodes
    for node in nodes:
        node.datapath.state.configure(mss=mss)
        node.run(lambda: turn_off_offloads("wire"))
    with sniffed(two) as inner:
        for _ in range(3):
            arrives(one, two, v6=v6, kind=kind)
        if kind is socket.SOCK_STREAM:
            assert transfer(one, two, v6=v6, amount=200_000) == 200_000
    assert len(inner) >= (140 if kind is socket.SOCK_STREAM else 3)
    for packet in inner:
        assert_sound(packet)
        assert len(packet) <= 1450
    if kind is socket.SOCK_STREAM and mss:
        assert mss_of(inner[0]) == mss - (20 if v6 else 0)


@FAMILIES
def test_a_pod_learns_at_once_that_nobody_has_an_address(nodes, v6):
    one, _ = nodes
    nowhere, source = ("fd00:9::9", one.pod6) if v6 else ("10.9.0.9", one.pod4)
    one.route(nowhere)
    with pytest.raises(OSError, match="No route to host"):
        one.run_pod(lambda: say(source, nowhere, socket.SOCK_STREAM))
    assert one.counted(Reason.DROP_NO_ENDPOINT) > 0


@FAMILIES
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
def test_pods_see_each_others_own_addresses(nodes, v6, kind):
    one, two = nodes
    assert arrives(one, two, v6=v6, kind=kind) == (one.pod6 if v6 else one.pod4)
    assert arrives(two, one, v6=v6, kind=kind) == (two.pod6 if v6 else two.pod4)
