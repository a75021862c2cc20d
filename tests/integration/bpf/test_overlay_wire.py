"""Two nodes on a wire of their own: what one sends, the other accepts or refuses."""

import re
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from bpf.counters import Line, Reason
from bpf.datapath import load
from bpf.layout import IpcacheKey
from bpf.specs import DatapathSettings
from tests.support.bpf_nodes import (
    DEVICE,
    PORT,
    Node,
    arrives,
    datagram,
    family_of,
    listen,
    say,
    two_nodes,
)
from tests.support.bpf_packets import packed

pytestmark = pytest.mark.root

BEFORE_TCX = replace(DatapathSettings.small(), tcx=False)
KINDS = pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
FAMILIES = pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])


@pytest.fixture
def nodes(tmp_path: Path, request: pytest.FixtureRequest):
    with two_nodes(tmp_path, getattr(request, "param", None)) as pair:
        yield pair


@FAMILIES
@KINDS
def test_pods_reach_each_other_both_ways(nodes, v6, kind):
    one, two = nodes
    for sender, receiver in ((one, two), (two, one)):
        source = sender.pod6 if v6 else sender.pod4
        assert arrives(sender, receiver, v6=v6, kind=kind) == source
    assert one.counted(Reason.FORWARDED, Line.PLAIN) > 0


@pytest.mark.parametrize("nodes", [BEFORE_TCX], indirect=True, ids=["clsact"])
def test_pods_reach_each_other_where_there_is_no_tcx(nodes):
    one, two = nodes
    assert arrives(one, two, v6=False, kind=socket.SOCK_STREAM) == one.pod4
    for node in nodes:
        shown = node.tc("filter", "show", "dev", DEVICE, "ingress")
        assert re.search(r"cm_from_overlay/\d+ direct-action", shown)
        assert node.attach() is False
        index = node.ifindex()
        node.run(lambda node=node, index=index: node.datapath.detach_overlay(index))
        assert "cm_from_overlay" not in node.tc("filter", "show", "dev", DEVICE, "ingress")


def test_the_older_way_is_taken_off_when_tcx_is_used_again(nodes):
    one, _ = nodes
    index = one.ifindex()
    with load(one.datapath._pins.root, BEFORE_TCX) as older:
        assert one.run(lambda: older.attach_overlay(index)) is True
    assert one.attach() is True
    assert one.attach() is False
    assert "cm_to_overlay" not in one.tc("filter", "show", "dev", DEVICE, "egress")


def test_a_node_nobody_knows_is_refused(nodes):
    one, two = nodes
    two.datapath.maps.nodes.drop_many([packed(one.underlay)])
    assert not datagram(one, two)
    assert two.counted(Reason.DROP_INVALID_SOURCE) == 1


SPOKEN = {
    0x10009: None,
    0x1FFFF: None,
    2: None,
    10: None,
    1: None,  # sent as 6
    0x1000001: None,  # does not fit: sent as 2
    0x20009: Reason.DROP_INVALID_CLUSTER,
    0x00FFFF: Reason.DROP_INVALID_CLUSTER,
    11: Reason.DROP_INVALID_CLUSTER,
    255: Reason.DROP_INVALID_CLUSTER,
}


def test_a_node_speaks_for_its_own_cluster_only(nodes):
    one, two = nodes
    for identity, reason in SPOKEN.items():
        one.know(one.pod4, identity)
        two.datapath.maps.metrics.reset()
        assert datagram(one, two) is (reason is None), hex(identity)
        assert two.counted(Reason.FORWARDED if reason is None else reason) == 1, hex(identity)


WIRE_IPV4, FROM_NODE = 0x0800, 0x1000
NUMBERS = [
    (0x10009, 0, 0x10009),
    (1, 0, 6),  # a host is a remote node to everybody else
    (1, FROM_NODE, 2),  # a client outside whose address the host has lent its own
    (0x10009, FROM_NODE, 0x10009),
    (9, 0, 2),
    (10, 0, 2),
    (0x1000001, 0, 2),  # known here only
    (None, 0, 2),
]


@FAMILIES
def test_the_number_on_the_wire_is_the_senders_identity(nodes, v6):
    one, two = nodes
    source, target = (one.pod6, two.pod6) if v6 else (one.pod4, two.pod4)
    wire = two.run(
        lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(WIRE_IPV4))
    )
    server = two.run(lambda: listen(target, socket.SOCK_DGRAM))
    with wire, server:
        wire.bind(("wire", WIRE_IPV4))
        wire.settimeout(10)
        seen = [_number_of_one(one, wire, source, target, *case[:2]) for case in NUMBERS]
    assert seen == [number for *_, number in NUMBERS]


def _number_of_one(
    sender: Node, wire: socket.socket, source: str, target: str, identity: int | None, mark: int
) -> int:
    """The VNI of a datagram, as it passes the wire: after Ethernet, IPv4, UDP and four bytes."""
    if identity is None:
        raw = packed(source)
        sender.datapath.maps.ipcache.drop_many([IpcacheKey(raw, len(raw) * 8).pack()])
    else:
        sender.know(source, identity)

    def send() -> None:
        with socket.socket(family_of(target), socket.SOCK_DGRAM) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            client.bind((source, 0))
            client.sendto(b"x", (target, PORT))

    sender.run(send)
    while True:
        frame = wire.recv(2000)
        if frame[36:38] == (8472).to_bytes(2, "big"):
            return int.from_bytes(frame[46:49], "big")


def test_nobody_else_may_speak_as_the_host(nodes):
    """Our own egress never says 1: the sender here is a plain VXLAN device of that number."""
    one, two = nodes
    one.ip("link", "del", DEVICE)
    one.ip(
        *("link", "add", DEVICE, "type", "vxlan", "id", "1", "remote", two.underlay),
        *("local", one.underlay, "dstport", "8472", "nolearning"),
    )
    one.ip("link", "set", DEVICE, "arp", "off", "addrgenmode", "none")
    one.ip("link", "set", DEVICE, "up")
    one.route(two.pod4)
    assert not datagram(one, two)
    assert two.counted(Reason.DROP_INVALID_IDENTITY) == 1


@FAMILIES
@KINDS
def test_a_pod_learns_at_once_that_nobody_has_an_address(nodes, v6, kind):
    one, _ = nodes
    nowhere, source = ("fd00:9::9", one.pod6) if v6 else ("10.9.0.9", one.pod4)
    one.route(nowhere)

    def try_it() -> None:
        with say(source, nowhere, kind) as client:
            client.recv(100)

    with pytest.raises(OSError, match="No route to host"):
        one.run(try_it)
    assert one.counted(Reason.DROP_NO_ENDPOINT, Line.UNREACHABLE_SENT) > 0
    assert one.counted(Reason.DROP_NO_TUNNEL_KEY) == 0


def test_a_device_made_anew_is_attached_anew(nodes):
    one, two = nodes
    assert one.attach() is False
    one.ip("link", "del", DEVICE)
    one.make_device()
    one.learn(two)
    assert one.attach() is True
    assert one.attach() is False
    assert arrives(one, two, v6=False, kind=socket.SOCK_STREAM) == one.pod4


def test_detached_programs_let_nothing_through(nodes):
    one, two = nodes
    index = one.ifindex()
    one.run(lambda: one.datapath.detach_overlay(index))
    assert not datagram(one, two)


def test_handshakes_through_the_overlay_promise_what_fits(nodes):
    one, two = nodes
    one.datapath.state.configure(mss=1000)
    server = two.run(lambda: listen(two.pod4, socket.SOCK_STREAM))
    client = one.run(lambda: say(one.pod4, two.pod4, socket.SOCK_STREAM))
    with server, client, server.accept()[0] as accepted:
        for end in (client, accepted):
            assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) <= 1000


def test_packets_go_on_while_every_agent_is_gone(nodes):
    one, two = nodes
    for node in nodes:
        node.datapath.close()
    assert arrives(one, two, v6=True, kind=socket.SOCK_STREAM) == one.pod6


def test_a_moved_pod_is_reached_at_its_new_node(nodes):
    one, two = nodes
    one.know(two.pod4, two.identity, packed("192.168.77.9"))
    assert not datagram(one, two)
    one.know(two.pod4, two.identity, packed(two.underlay))
    assert datagram(one, two)
    one.datapath.maps.ipcache.drop_many([IpcacheKey(packed(two.pod4), 32).pack()])
    assert not datagram(one, two)
    assert one.counted(Reason.DROP_NO_ENDPOINT, Line.UNREACHABLE_SENT) == 1
