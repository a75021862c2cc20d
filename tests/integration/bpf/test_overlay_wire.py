"""Two nodes on a wire of their own: what one sends, the other accepts or refuses."""

import json
import os
import re
import socket
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bpf.datapath import Datapath, load
from bpf.layout import IpcacheKey, IpcacheValue, NodeValue
from bpf.specs import DatapathSettings
from tests.support.bpf import counted, inside, netns, private_bpffs
from tests.support.bpf_packets import packed

pytestmark = pytest.mark.root

DEVICE = "cm-overlay"
IP_RECVERR, IPV6_RECVERR = 11, 25  # datagrams are told of an unreachable host only if they ask
INVALID_SOURCE, NO_ENDPOINT, INVALID_IDENTITY, INVALID_CLUSTER = 132, 160, 171, 192


@dataclass(frozen=True)
class Node:
    """A namespace that plays a node with one pod, whose addresses its loopback has."""

    namespace: str
    underlay: str
    cluster: int
    pod4: str
    pod6: str
    datapath: Datapath

    @property
    def identity(self) -> int:
        return self.cluster << 16 | 9

    def ip(self, *words: str) -> None:
        subprocess.run(["ip", "-n", self.namespace, *words], check=True)

    def run(self, work: Callable[[], object]) -> object:
        return inside(work, namespace=self.namespace)

    def ifindex(self) -> int:
        shown = subprocess.run(
            ["ip", "-j", "-n", self.namespace, "link", "show", DEVICE],
            check=True,
            capture_output=True,
        )
        return int(json.loads(shown.stdout)[0]["ifindex"])

    def make_device(self, mtu: int = 1450) -> None:
        self.ip(
            *("link", "add", DEVICE, "mtu", str(mtu), "type", "vxlan"),
            *("external", "dstport", "8472", "nolearning"),
        )
        self.ip("link", "set", DEVICE, "arp", "off", "addrgenmode", "none")
        self.ip("link", "set", DEVICE, "up")

    def learn(self, other: "Node") -> None:
        """Both addresses of the other's pod, the other node itself, and routes to it."""
        for address in (other.pod4, other.pod6):
            self.know(address, other.identity, packed(other.underlay))
            source = self.pod4 if "." in address else self.pod6
            self.ip("route", "replace", address, "dev", DEVICE, "src", source)
        value = NodeValue.of_cluster(other.cluster).pack()
        self.datapath.maps.nodes.put_many([(packed(other.underlay), value)])

    def know(self, address: str, identity: int, endpoint: bytes = bytes(4)) -> None:
        raw = packed(address)
        key, value = IpcacheKey(raw, len(raw) * 8), IpcacheValue(identity, endpoint)
        self.datapath.maps.ipcache.put_many([(key.pack(), value.pack())])

    def counted(self, reason: int, line: int | None = None) -> int:
        return counted(self.datapath.maps.metrics.read(), reason, line)


@pytest.fixture
def nodes(tmp_path: Path, request: pytest.FixtureRequest):
    """Two nodes of clusters 1 and 2, attached and knowing each other."""
    settings = getattr(request, "param", DatapathSettings.small())
    tag = f"cm-test-{os.getpid()}"
    with ExitStack() as stack:
        pair = []
        for n in (1, 2):
            namespace = stack.enter_context(netns(f"{tag}-{n}"))
            folder = stack.enter_context(private_bpffs(tmp_path / f"bpf{n}"))
            datapath = stack.enter_context(load(folder / "clustermesh", settings))
            pod4, pod6 = f"10.{n}.0.5", f"fd00:{n}::5"
            pair.append(Node(namespace, f"192.168.77.{n}", n, pod4, pod6, datapath))
        connect(*pair)
        for node, other in (pair, pair[::-1]):
            for address in (f"{node.pod4}/32", f"{node.pod6}/128"):
                node.ip("address", "add", address, "dev", "lo")
                node.know(address.partition("/")[0], node.identity)
            node.make_device()
            node.learn(other)
            node.run(lambda node=node: node.datapath.attach_overlay(node.ifindex()))
        yield pair


def connect(one: Node, two: Node) -> None:
    one.ip("link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", two.namespace)
    for node in (one, two):
        node.ip("address", "add", f"{node.underlay}/24", "dev", "wire")
        node.ip("link", "set", "wire", "up")


def listen(address: str, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.socket(family, kind)
    server.settimeout(10)
    server.bind((address, 7777))
    if kind is socket.SOCK_STREAM:
        server.listen()
    return server


def say(source: str, target: str, kind: socket.SocketKind, *, timeout: float = 10) -> socket.socket:
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    client = socket.socket(family, kind)
    try:
        client.settimeout(timeout)
        if family == socket.AF_INET6:
            client.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
        else:
            client.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        client.bind((source, 0))
        client.connect((target, 7777))
        client.sendall(b"over the mesh")
    except BaseException:
        client.close()
        raise
    return client


def arrives(sender: Node, receiver: Node, *, v6: bool, kind: socket.SocketKind) -> str:
    """Sends from pod to pod; where the receiver saw it come from."""
    source, target = (sender.pod6, receiver.pod6) if v6 else (sender.pod4, receiver.pod4)
    server = receiver.run(lambda: listen(target, kind))
    client = sender.run(lambda: say(source, target, kind))
    with server, client:
        if kind is socket.SOCK_DGRAM:
            data, peer = server.recvfrom(100)
        else:
            accepted, peer = server.accept()
            with accepted:
                data = accepted.recv(100)
        assert data == b"over the mesh"
        return str(peer[0])


@pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_pods_reach_each_other_both_ways(nodes, v6, kind):
    one, two = nodes
    for sender, receiver in ((one, two), (two, one)):
        source = sender.pod6 if v6 else sender.pod4
        assert arrives(sender, receiver, v6=v6, kind=kind) == source
    assert one.counted(0, 1) > 0


@pytest.mark.parametrize(
    "nodes", [replace(DatapathSettings.small(), tcx=False)], indirect=True, ids=["clsact"]
)
def test_pods_reach_each_other_where_there_is_no_tcx(nodes):
    one, two = nodes
    assert arrives(one, two, v6=False, kind=socket.SOCK_STREAM) == one.pod4
    for node in nodes:
        shown = subprocess.run(
            ["tc", "-n", node.namespace, "filter", "show", "dev", DEVICE, "ingress"],
            check=True,
            capture_output=True,
            text=True,
        )
        assert re.search(r"cm_from_overlay/\d+ direct-action", shown.stdout)
        assert node.run(lambda node=node: node.datapath.attach_overlay(node.ifindex())) is False
        node.run(lambda node=node: node.datapath.detach_overlay(node.ifindex()))
        shown = subprocess.run(
            ["tc", "-n", node.namespace, "filter", "show", "dev", DEVICE, "ingress"],
            check=True,
            capture_output=True,
            text=True,
        )
        assert "cm_from_overlay" not in shown.stdout


def test_the_older_way_is_taken_off_when_tcx_is_used_again(nodes):
    one, _ = nodes
    root = one.datapath._pins.root
    with load(root, replace(DatapathSettings.small(), tcx=False)) as older:
        assert one.run(lambda: older.attach_overlay(one.ifindex())) is True
    assert one.run(lambda: one.datapath.attach_overlay(one.ifindex())) is True
    shown = subprocess.run(
        ["tc", "-n", one.namespace, "filter", "show", "dev", DEVICE, "egress"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "cm_to_overlay" not in shown.stdout


def datagram(sender: Node, receiver: Node) -> bool:
    """Whether one datagram gets through."""
    server = receiver.run(lambda: listen(receiver.pod4, socket.SOCK_DGRAM))
    client = sender.run(lambda: say(sender.pod4, receiver.pod4, socket.SOCK_DGRAM))
    with server, client:
        server.settimeout(0.3)
        try:
            server.recv(100)
        except TimeoutError:
            return False
        return True


def test_a_node_nobody_knows_is_refused(nodes):
    one, two = nodes
    two.datapath.maps.nodes.drop_many([packed(one.underlay)])
    assert not datagram(one, two)
    assert two.counted(INVALID_SOURCE) == 1


@pytest.mark.parametrize(
    ("identity", "reason"),
    [
        (0x10009, None),
        (0x1FFFF, None),
        (2, None),
        (10, None),
        (1, None),
        (0x20009, INVALID_CLUSTER),
        (0x00FFFF, INVALID_CLUSTER),
        (11, INVALID_CLUSTER),
        (255, INVALID_CLUSTER),
        (0x1000001, None),
    ],
)
def test_a_node_speaks_for_its_own_cluster_only(nodes, identity, reason):
    one, two = nodes
    one.know(one.pod4, identity)
    assert datagram(one, two) is (reason is None)
    if reason is not None:
        assert two.counted(reason) == 1


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
    one.ip("route", "replace", two.pod4, "dev", DEVICE, "src", one.pod4)
    assert not datagram(one, two)
    assert two.counted(INVALID_IDENTITY) == 1


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
@pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
def test_a_pod_learns_at_once_that_nobody_has_an_address(nodes, v6, kind):
    one, _ = nodes
    nowhere = "fd00:9::9" if v6 else "10.9.0.9"
    source = one.pod6 if v6 else one.pod4
    one.ip("route", "add", nowhere, "dev", DEVICE, "src", source)

    def try_it() -> None:
        with say(source, nowhere, kind) as client:
            client.recv(100)

    with pytest.raises(OSError, match="No route to host"):
        one.run(try_it)
    assert one.counted(NO_ENDPOINT, 4) > 0
    assert one.counted(147) == 0


def test_a_device_made_anew_is_attached_anew(nodes):
    one, two = nodes
    attach = lambda: one.datapath.attach_overlay(one.ifindex())  # noqa: E731
    assert one.run(attach) is False
    one.ip("link", "del", DEVICE)
    one.make_device()
    one.learn(two)
    assert one.run(attach) is True
    assert one.run(attach) is False
    assert arrives(one, two, v6=False, kind=socket.SOCK_STREAM) == one.pod4


def test_detached_programs_let_nothing_through(nodes):
    one, two = nodes
    one.run(lambda: one.datapath.detach_overlay(one.ifindex()))
    assert not datagram(one, two)


def test_handshakes_through_the_overlay_promise_what_fits(nodes):
    one, two = nodes
    one.datapath.state.configure(mss=1000)
    server = two.run(lambda: listen(two.pod4, socket.SOCK_STREAM))
    client = one.run(lambda: say(one.pod4, two.pod4, socket.SOCK_STREAM))
    with server, client, server.accept()[0] as accepted:
        for end in (client, accepted):
            assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) <= 1000
