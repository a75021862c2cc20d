"""Load balancing per packet with real sockets: a client outside, a node, backends in three places.

The client is behind the node's uplink, the only device that is named. Backends are a pod of the
node, another node of the cluster (a hop away), and a pod of another cluster (over the overlay).
"""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.network import nftables
from agent.network.wanted import Facts, Place
from bpf.balancer import Balancer
from bpf.layout_ct import SERVICE, ConnectionKey
from bpf.layout_lb import ServiceFlag
from tests.support.bpf import inside, netns
from tests.support.bpf_balance import EVERY, HOST, emptied
from tests.support.bpf_nodes import DEVICE, Node, two_nodes
from tests.support.bpf_services import TCP, UDP, Lab, Servers, ask, family_of, running

pytestmark = pytest.mark.root

CLIENT = {4: "203.0.113.9", 6: "2001:db8:f::9"}
NODE = {4: "203.0.113.1", 6: "2001:db8:f::1"}
OVERLAY = {4: "10.1.0.1", 6: "fd00:1::1"}
NEIGHBOUR = {4: "10.1.1.5", 6: "fd00:1:1::5"}
UNDERLAY = {4: "192.168.77.1", 6: "fd77::1"}
VIP = {4: "10.96.0.10", 6: "fd00:96::a"}
NODE_PORT = 30080

FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
KINDS = pytest.mark.parametrize("kind", [TCP, UDP], ids=["tcp", "udp"])


class Witnesses(Servers):
    """Answer with the address they were asked at, who asked, and how much was said."""

    def _answer(self, server: socket.socket, address: str, kind: socket.SocketKind | None) -> None:
        if kind is TCP:
            super()._answer(server, address, kind)
            return
        data, peer = server.recvfrom(65536)
        peer = peer or (data and server.getpeername())
        told = f"{address} {peer[0] if peer else ''} ".encode()
        if kind is UDP:
            server.sendto(told + data, peer)
        elif data:
            server.sendall(told + str(len(data)).encode() + b"\n")
        else:
            super()._answer(server, address, kind)


@dataclass
class Scene:
    """The node with the uplink, its maps, and where the client sits."""

    node: Node
    lab: Lab
    client: str
    backends: dict[tuple[str, int], str]
    sources: dict[tuple[str, int], str]
    balancer: Balancer

    def serve(self, family: int, kind: socket.SocketKind, *where: str, **how) -> None:
        """By the service's own address, and by node port; no ``where``: nobody is there."""
        ids = [self.lab.backend(self.backends[it, family], kind) for it in where]
        self.lab.service(VIP[family], kind, ids, rev_nat=7, **how)
        how["flags"] = how.get("flags", 0) | ServiceFlag.NODE_PORT
        self.lab.service(EVERY[family], kind, ids, rev_nat=8, port=NODE_PORT, **how)

    def connections(self) -> list[ConnectionKey]:
        tables = self.balancer.connections
        return [ConnectionKey.unpack(key) for table in tables for key, _ in table.items()]

    def ask(self, family: int, kind: socket.SocketKind, *, node_port: bool) -> list[str]:
        target = (NODE[family], NODE_PORT) if node_port else (VIP[family], 80)
        answer = inside(lambda: ask(target[0], kind, port=target[1]), namespace=self.client)
        return answer.split()[:2]


def shell(*lines: str) -> None:
    for line in lines:
        subprocess.run(line.split(), check=True)


def connect(one: Node, two: Node, client: str) -> None:
    """The client by way of the uplink, and the neighbour's address by way of the wire."""
    here, there = f"ip -n {one.namespace}", f"ip -n {two.namespace}"
    shell(
        f"{here} link add uplink type veth peer name eth0 netns {client}",
        f"{here} address add {NODE[4]}/24 dev uplink",
        f"{here} address add {NODE[6]}/64 dev uplink nodad",
        f"{here} link set uplink up",
        f"ip -n {client} address add {CLIENT[4]}/24 dev eth0",
        f"ip -n {client} address add {CLIENT[6]}/64 dev eth0 nodad",
        f"ip -n {client} link set eth0 up",
        f"ip -n {client} route add default via {NODE[4]}",
        f"ip -n {client} -6 route add default via {NODE[6]}",
        f"{here} address add {UNDERLAY[6]}/64 dev wire nodad",
        f"{there} address add fd77::2/64 dev wire nodad",
        f"{there} address add {NEIGHBOUR[4]}/32 dev lo",
        f"{there} address add {NEIGHBOUR[6]}/128 dev lo nodad",
        f"{here} route add {NEIGHBOUR[4]} via {two.underlay}",
        f"{here} -6 route add {NEIGHBOUR[6]} via fd77::2",
        f"{here} address add {OVERLAY[4]}/32 dev lo",
        f"{here} address add {OVERLAY[6]}/128 dev lo nodad",
    )
    for family in (4, 6):
        one.know(OVERLAY[family], HOST)
        one.know(NODE[family], HOST)
        one.know(NEIGHBOUR[family], 0x1000A, socket.inet_aton(two.underlay))
        two.know(OVERLAY[family], 6, socket.inet_aton(one.underlay))
        two.route(OVERLAY[family])


def postrouting(place: str) -> None:
    def commit() -> None:
        facts = Facts(overlay=tuple(OVERLAY.values()))
        with nftables.nft() as nft:
            wanted = nftables.table(Place(device=DEVICE, balances=True), facts, device_port=8472)
            nft.commit(nftables.changes(nft.table(), wanted))
            assert nftables.changes(nft.table(), wanted) == []

    inside(commit, namespace=place)


@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> Iterator[Scene]:
    client = f"cm-test-{os.getpid()}-client"
    with ExitStack() as stack:
        one, two = stack.enter_context(two_nodes(tmp_path_factory.mktemp("wire"), pod_mtu=1500))
        stack.enter_context(netns(client))
        connect(one, two, client)
        postrouting(one.namespace)
        balancer = stack.enter_context(one.datapath.balancer())
        uplink = one.run(lambda: socket.if_nametoindex("uplink"))
        assert one.run(lambda: balancer.attach({"uplink": uplink})) is True
        one.datapath.state.configure(cluster_id=1)
        backends = {
            ("pod", 4): one.pod4, ("pod", 6): one.pod6,
            ("neighbour", 4): NEIGHBOUR[4], ("neighbour", 6): NEIGHBOUR[6],
            ("remote", 4): two.pod4, ("remote", 6): two.pod6,
        }  # fmt: skip
        for namespace, addresses in (
            (one.pod, [one.pod4, one.pod6]),
            (two.namespace, list(NEIGHBOUR.values())),
            (two.pod, [two.pod4, two.pod6]),
        ):
            made = inside(lambda its=addresses: Witnesses(its), namespace=namespace)
            stack.enter_context(running(made))
        sources = {
            **{("pod", family): CLIENT[family] for family in (4, 6)},
            **{("neighbour", family): UNDERLAY[family] for family in (4, 6)},
            **{("remote", family): OVERLAY[family] for family in (4, 6)},
        }
        lab = Lab(one.datapath, one.namespace, Path())
        yield Scene(one, lab, client, backends, sources, balancer)


@pytest.fixture
def scene(everything: Scene) -> Scene:
    for maps in (everything.node.datapath.maps,):
        for at in (maps.services4, maps.services6, maps.affinity4, maps.affinity6):
            emptied(at)
        for tables in (maps.tables4, maps.tables6):
            emptied(tables)
    return everything


@FAMILIES
@KINDS
@pytest.mark.parametrize("node_port", [False, True], ids=["address", "node-port"])
@pytest.mark.parametrize("where", ["pod", "neighbour", "remote"])
def test_a_client_outside_reaches_a_backend_wherever_it_is(
    scene: Scene, family, kind, node_port, where
):
    scene.serve(family, kind, where)
    for _ in range(3):
        answer = scene.ask(family, kind, node_port=node_port)
        assert answer == [scene.backends[where, family], scene.sources[where, family]]


@FAMILIES
@KINDS
@pytest.mark.parametrize("node_port", [False, True], ids=["address", "node-port"])
def test_a_service_that_nobody_serves_is_refused_at_once(scene: Scene, family, kind, node_port):
    scene.serve(family, kind)
    with pytest.raises(ConnectionRefusedError):
        scene.ask(family, kind, node_port=node_port)


@FAMILIES
def test_the_shares_of_the_table_are_the_shares_of_the_clients(scene: Scene, family):
    scene.serve(family, TCP, "pod", "neighbour", "remote")
    found = [scene.ask(family, TCP, node_port=False)[0] for _ in range(60)]
    assert set(found) == {scene.backends[it, family] for it in ("pod", "neighbour", "remote")}


@FAMILIES
@KINDS
def test_a_sticky_client_stays(scene: Scene, family, kind):
    how = {"flags": ServiceFlag.SESSION_AFFINITY, "timeout": 100}
    scene.serve(family, kind, "pod", "neighbour", "remote", **how)
    assert len({scene.ask(family, kind, node_port=True)[0] for _ in range(20)}) == 1


EXTERNAL = {4: "198.51.100.7", 6: "2001:db8:e::7"}
"""Each with a digit more."""
WAYS = {"nowhere": "", "back": "dev uplink", "through": "dev wire", "blackhole": "blackhole"}


@FAMILIES
@pytest.mark.parametrize(("way", "served"), [
    ("nowhere", True), ("back", True), ("blackhole", True), ("through", False),
])  # fmt: skip
def test_an_external_address_counts_unless_the_packet_is_on_its_way_to_somebody(
    scene: Scene, family, way, served
):
    address = f"{EXTERNAL[family]}{list(WAYS).index(way)}"
    ip_route = ["ip", "-n", scene.node.namespace, f"-{family}", "route"]
    backend = scene.lab.backend(scene.backends["pod", family], TCP)
    how = {"rev_nat": 9, "flags": ServiceFlag.EXTERNAL_IP}
    scene.lab.service(address, TCP, [backend], **how)
    words = [WAYS[way], address] if way == "blackhole" else [address, *WAYS[way].split()]
    if way != "nowhere":
        subprocess.run([*ip_route, "add", *words], check=True)
    try:
        if served:
            answer = inside(lambda: ask(address, TCP), namespace=scene.client)
            assert answer.split()[:2] == [scene.backends["pod", family], CLIENT[family]]
        else:
            inside(lambda: begin(address), namespace=scene.client)
        known = {key.daddr for key in scene.connections() if key.flags == SERVICE}
        assert (socket.inet_pton(family_of(address), address) in known) is served
    finally:
        if way != "nowhere":
            subprocess.run([*ip_route, "del", *words], check=True)


def begin(address: str) -> None:
    """A handshake that nobody answers for now."""
    with socket.socket(family_of(address), TCP) as client:
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.connect((address, 80))


@FAMILIES
def test_what_nobody_asked_us_for_goes_where_it_went(scene: Scene, family):
    """A port of the node that is no service, and a pod by its own address."""
    backend = scene.backends["pod", family]
    answer = inside(lambda: ask(backend, TCP, port=8080), namespace=scene.client)
    assert answer.split()[:2] == [backend, CLIENT[family]]
    with pytest.raises(ConnectionRefusedError):
        inside(lambda: ask(NODE[family], TCP, port=NODE_PORT + 1), namespace=scene.client)


def send_much(target: str, port: int, size: int) -> int:
    """Bytes that the backend says it got."""
    with socket.socket(family_of(target), TCP) as client:
        client.settimeout(20)
        client.connect((target, port))
        client.sendall(bytes(size))
        client.shutdown(socket.SHUT_WR)
        with client.makefile() as answers:
            return sum(int(line.split()[-1]) for line in answers)


@FAMILIES
@pytest.mark.parametrize("where", ["pod", "remote"])
def test_large_segments_find_the_way_that_the_overlay_has(scene: Scene, family, where):
    """The client's packets have 1500 bytes, the overlay's 1450: it must be told, and understand."""
    scene.serve(family, TCP, where)
    sent = 400_000
    got = inside(lambda: send_much(NODE[family], NODE_PORT, sent), namespace=scene.client)
    assert got == sent


def exchange_large(target: str, port: int, size: int) -> int:
    with socket.socket(family_of(target), UDP) as client:
        client.settimeout(10)
        client.connect((target, port))
        client.send(bytes(size))
        return len(client.recv(65536))


@pytest.mark.parametrize("where", ["pod", "neighbour", "remote"])
def test_large_datagrams_go_and_come_in_parts(scene: Scene, where):
    scene.serve(4, UDP, where)
    got = inside(lambda: exchange_large(NODE[4], NODE_PORT, 6000), namespace=scene.client)
    assert got > 6000
