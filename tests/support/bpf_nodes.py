"""Two namespaces that play nodes on a wire, our overlay between them, maybe a pod behind each."""

import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bpf.datapath import Datapath, load
from bpf.layout import IpcacheKey, IpcacheValue, NodeValue
from bpf.specs import DatapathSettings
from tests.support.bpf import counted, inside, netns, private_bpffs
from tests.support.bpf_packets import packed

Result = TypeVar("Result")
DEVICE = "cm-overlay"
PORT = 7777
IP_RECVERR, IPV6_RECVERR = 11, 25  # datagrams are told of an unreachable host only if they ask


@dataclass(frozen=True)
class Node:
    """A namespace that plays a node. Its one pod is the node itself, or a namespace behind it."""

    namespace: str
    pod: str
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

    def tc(self, *words: str) -> str:
        command = ["tc", "-n", self.namespace, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def run(self, work: Callable[[], Result]) -> Result:
        return inside(work, namespace=self.namespace)

    def run_pod(self, work: Callable[[], Result]) -> Result:
        return inside(work, namespace=self.pod)

    def ifindex(self) -> int:
        command = ["ip", "-j", "-n", self.namespace, "link", "show", DEVICE]
        shown = subprocess.run(command, check=True, capture_output=True)
        return int(json.loads(shown.stdout)[0]["ifindex"])

    def attach(self) -> bool:
        index = self.ifindex()
        return self.run(lambda: self.datapath.attach_overlay(index))

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
            self.route(address)
        value = NodeValue.of_cluster(other.cluster).pack()
        self.datapath.maps.nodes.put_many([(packed(other.underlay), value)])

    def route(self, address: str) -> None:
        """An address by way of the overlay, from our pod's when the node itself is the pod."""
        source = self.pod4 if "." in address else self.pod6
        hint = ("src", source) if self.pod == self.namespace else ()
        self.ip("route", "replace", address, "dev", DEVICE, *hint)

    def know(self, address: str, identity: int, endpoint: bytes = bytes(4)) -> None:
        raw = packed(address)
        key, value = IpcacheKey(raw, len(raw) * 8), IpcacheValue(identity, endpoint)
        self.datapath.maps.ipcache.put_many([(key.pack(), value.pack())])

    def counted(self, reason: int, line: int | None = None) -> int:
        return counted(self.datapath.maps.metrics.read(), reason, line)

    def add_pod(self, mtu: int) -> None:
        """A namespace behind a veth, routed by the node as a CNI would."""
        self.ip(
            *("link", "add", "pod", "mtu", str(mtu), "type", "veth"),
            *("peer", "name", "eth0", "netns", self.pod),
        )
        subprocess.run(
            ["ip", "-n", self.pod, "link", "set", "eth0", "mtu", str(mtu), "up"], check=True
        )
        self.ip("link", "set", "pod", "up")
        self.ip("address", "add", "169.254.1.1/32", "dev", "pod")
        self.ip("address", "add", "fe80::1/64", "dev", "pod", "nodad")
        for line in (
            f"address add {self.pod4}/32 dev eth0",
            f"address add {self.pod6}/128 dev eth0 nodad",
            "route add 169.254.1.1 dev eth0",
            f"route add default via 169.254.1.1 dev eth0 src {self.pod4}",
            f"-6 route add default via fe80::1 dev eth0 src {self.pod6}",
        ):
            subprocess.run(["ip", "-n", self.pod, *line.split()], check=True)
        self.ip("route", "add", self.pod4, "dev", "pod")
        self.ip("route", "add", self.pod6, "dev", "pod")
        self.run(_forward)


def _forward() -> None:
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")


@contextmanager
def two_nodes(
    folder: Path,
    settings: DatapathSettings | None = None,
    *,
    pod_mtu: int | None = None,
    wire_mtu: int = 1500,
    attached: bool = True,
) -> Iterator[tuple[Node, Node]]:
    """Nodes of clusters 1 and 2 that know each other; `pod_mtu` puts a pod behind each."""
    tag = f"cm-test-{os.getpid()}"
    with ExitStack() as stack:
        pair = []
        for n in (1, 2):
            namespace = stack.enter_context(netns(f"{tag}-{n}"))
            pod = stack.enter_context(netns(f"{tag}-{n}-pod")) if pod_mtu else namespace
            bpffs = stack.enter_context(private_bpffs(folder / f"bpf{n}"))
            loaded = load(bpffs / "clustermesh", settings or DatapathSettings.small())
            datapath = stack.enter_context(loaded)
            pair.append(
                Node(namespace, pod, f"192.168.77.{n}", n, f"10.{n}.0.5", f"fd00:{n}::5", datapath)
            )
        one, two = pair
        _connect(one, two, wire_mtu)
        for node, other in ((one, two), (two, one)):
            if pod_mtu:
                node.add_pod(pod_mtu)
            else:
                node.ip("address", "add", f"{node.pod4}/32", "dev", "lo")
                node.ip("address", "add", f"{node.pod6}/128", "dev", "lo", "nodad")
            for address in (node.pod4, node.pod6):
                node.know(address, node.identity)
            node.make_device(wire_mtu - 50)
            node.learn(other)
            if attached:
                node.attach()
        yield one, two


def _connect(one: Node, two: Node, mtu: int) -> None:
    one.ip("link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", two.namespace)
    for node in (one, two):
        node.ip("address", "add", f"{node.underlay}/24", "dev", "wire")
        node.ip("link", "set", "wire", "mtu", str(mtu), "up")


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def listen(address: str, kind: socket.SocketKind) -> socket.socket:
    server = socket.socket(family_of(address), kind)
    server.settimeout(10)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((address, PORT))
    if kind is socket.SOCK_STREAM:
        server.listen()
    return server


def say(source: str, target: str, kind: socket.SocketKind, *, timeout: float = 10) -> socket.socket:
    """A connected socket that has said "over the mesh"."""
    client = socket.socket(family_of(target), kind)
    try:
        client.settimeout(timeout)
        if ":" in target:
            client.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
        else:
            client.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        client.bind((source, 0))
        client.connect((target, PORT))
        client.sendall(b"over the mesh")
    except BaseException:
        client.close()
        raise
    return client


def arrives(sender: Node, receiver: Node, *, v6: bool, kind: socket.SocketKind) -> str:
    """Sends from pod to pod; where the receiver saw it come from."""
    source, target = (sender.pod6, receiver.pod6) if v6 else (sender.pod4, receiver.pod4)
    server = receiver.run_pod(lambda: listen(target, kind))
    client = sender.run_pod(lambda: say(source, target, kind))
    with server, client:
        if kind is socket.SOCK_DGRAM:
            data, peer = server.recvfrom(100)
        else:
            accepted, peer = server.accept()
            with accepted:
                data = accepted.recv(100)
        assert data == b"over the mesh"
        return str(peer[0])


def datagram(sender: Node, receiver: Node) -> bool:
    """Whether one datagram gets through."""
    server = receiver.run_pod(lambda: listen(receiver.pod4, socket.SOCK_DGRAM))
    client = sender.run_pod(lambda: say(sender.pod4, receiver.pod4, socket.SOCK_DGRAM))
    with server, client:
        server.settimeout(0.3)
        try:
            server.recv(100)
        except TimeoutError:
            return False
        return True
