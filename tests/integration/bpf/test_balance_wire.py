"""Load balancing per packet with real sockets: a client outside, a node, backends in three places.

The client is behind the node's uplink. Backends are a pod of the node, another node of the cluster
(a hop away, or through another program's tunnel), and a pod of another cluster (over the overlay).
A bridge of the node is named, too: behind it are a guest that asks and one that serves.
"""

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.balancing import Balancing
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
GUEST = {4: "172.20.0.9", 6: "fd00:20::9"}
SERVING_GUEST = {4: "172.20.0.5", 6: "fd00:20::5"}
BRIDGE = {4: "172.20.0.1", 6: "fd00:20::1"}
BEHIND_TUNNEL, TUNNEL, SECOND_UNDERLAY = "10.1.2.9", "10.1.0.9", "192.168.77.101"
TUNNEL_PORT, UDP_PROTOCOL = 4789, 17

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
    guest: str
    neighbour: Node
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


def bridge(one: Node, guests: dict[str, dict[int, str]]) -> None:
    """A bridge of the node, and namespaces behind it with these addresses. Netfilter looks into
    it where the kernel can, as Kubernetes asks for."""
    looking = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    one.run(lambda: looking.parent.is_dir() and looking.write_text("1"))
    here = f"ip -n {one.namespace}"
    shell(
        f"{here} link add lan address 02:00:00:00:02:01 type bridge",
        f"{here} address add {BRIDGE[4]}/24 dev lan",
        f"{here} address add {BRIDGE[6]}/64 dev lan nodad",
        f"{here} link set lan up",
    )
    for number, (guest, addresses) in enumerate(guests.items()):
        there = f"ip -n {guest}"
        shell(
            f"{here} link add port{number} type veth peer name eth0 netns {guest}",
            f"{here} link set port{number} master lan up",
            f"{there} address add {addresses[4]}/24 dev eth0",
            f"{there} address add {addresses[6]}/64 dev eth0 nodad",
            f"{there} link set eth0 up",
            f"{there} route add default via {BRIDGE[4]}",
            f"{there} -6 route add default via {BRIDGE[6]}",
        )


def tunnel(one: Node, two: Node) -> None:
    """As a CNI has it, from an address of the node that its routes would not choose."""
    one.ip("address", "add", f"{SECOND_UNDERLAY}/24", "dev", "wire")
    ends = ((one, SECOND_UNDERLAY, TUNNEL, two), (two, two.underlay, BEHIND_TUNNEL, one))
    peers = {one.namespace: SECOND_UNDERLAY, two.namespace: two.underlay}
    for number, (node, local, address, other) in enumerate(ends):
        node.ip(
            *("link", "add", "cni", "mtu", "1450", "type", "vxlan", "id", "42", "nolearning"),
            *("remote", peers[other.namespace], "local", local, "dstport", str(TUNNEL_PORT)),
        )
        node.ip("link", "set", "cni", "address", f"02:00:00:00:01:0{number}", "up")
        node.ip("address", "add", f"{address}/32", "dev", "cni")
        far = (TUNNEL, BEHIND_TUNNEL)[1 - number]
        neighbour = ("lladdr", f"02:00:00:00:01:0{1 - number}", "dev", "cni")
        node.ip("route", "add", far, "dev", "cni")
        node.ip("neigh", "replace", far, *neighbour, "nud", "permanent")
    one.know(BEHIND_TUNNEL, 0x1000A, socket.inet_aton(two.underlay))


@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> Iterator[Scene]:
    client, guest, serving = (
        f"cm-test-{os.getpid()}-{name}" for name in ("client", "guest", "serving")
    )
    with ExitStack() as stack:
        one, two = stack.enter_context(two_nodes(tmp_path_factory.mktemp("wire"), pod_mtu=1500))
        for name in (client, guest, serving):
            stack.enter_context(netns(name))
        connect(one, two, client)
        bridge(one, {guest: GUEST, serving: SERVING_GUEST})
        tunnel(one, two)
        postrouting(one.namespace)
        balancer = stack.enter_context(one.datapath.balancer())
        named = one.run(lambda: {it: socket.if_nametoindex(it) for it in ("uplink", "lan")})
        assert one.run(lambda: balancer.attach(named)) is True
        one.datapath.state.configure(cluster_id=1)
        backends = {
            ("pod", 4): one.pod4, ("pod", 6): one.pod6,
            ("neighbour", 4): NEIGHBOUR[4], ("neighbour", 6): NEIGHBOUR[6],
            ("remote", 4): two.pod4, ("remote", 6): two.pod6,
            ("guest", 4): SERVING_GUEST[4], ("guest", 6): SERVING_GUEST[6],
            ("tunnel", 4): BEHIND_TUNNEL,
        }  # fmt: skip
        for namespace, addresses in (
            (one.pod, [one.pod4, one.pod6]),
            (two.namespace, [*NEIGHBOUR.values(), BEHIND_TUNNEL]),
            (serving, list(SERVING_GUEST.values())),
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
        yield Scene(one, lab, client, guest, two, backends, sources, balancer)


@pytest.fixture
def scene(everything: Scene) -> Scene:
    for table in everything.balancer.connections:
        emptied(table)
    for maps in (everything.node.datapath.maps,):
        for at in (maps.services4, maps.services6, maps.affinity4, maps.affinity6):
            emptied(at)
        for ranges in (maps.source_ranges4, maps.source_ranges6):
            emptied(ranges)
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
def test_source_ranges_decide_who_is_served(scene: Scene, family, kind):
    """Those who are not are not answered, as kube-proxy has it."""
    scene.serve(family, kind, "pod", flags=ServiceFlag.LOAD_BALANCER | ServiceFlag.SOURCE_RANGE)
    with pytest.raises(TimeoutError):
        inside(lambda: ask(VIP[family], kind, timeout=0.3), namespace=scene.client)
    scene.lab.open_to(7, f"{CLIENT[family]}/{32 if family == 4 else 128}")
    answer = scene.ask(family, kind, node_port=False)
    assert answer == [scene.backends["pod", family], CLIENT[family]]


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


def ask_from_one_port(kind: socket.SocketKind, targets: list[tuple[str, int]]) -> list[str]:
    """Who answers each, with all conversations open at once."""
    with ExitStack() as stack:
        asking, port = [], 0
        for target in targets:
            client = stack.enter_context(socket.socket(family_of(target[0]), kind))
            client.settimeout(5)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            client.bind(("::" if ":" in target[0] else "0.0.0.0", port))  # noqa: S104  # in a namespace
            port = client.getsockname()[1]
            client.connect(target)
            asking.append(client)
        for _ in range(2):
            for client in asking:
                client.sendall(b"who")
            answers = [client.recv(100).decode().split()[0] for client in asking]
        return answers


@FAMILIES
@KINDS
@pytest.mark.parametrize("where", ["pod", "neighbour", "remote"])
def test_one_port_asks_two_services_of_one_backend_at_once(scene: Scene, family, kind, where):
    scene.serve(family, kind, where)
    targets = [(VIP[family], 80), (NODE[family], NODE_PORT)]
    found = inside(lambda: ask_from_one_port(kind, targets), namespace=scene.client)
    assert found == [scene.backends[where, family]] * 2


@FAMILIES
def test_what_nobody_asked_us_for_goes_where_it_went(scene: Scene, family):
    """A port of the node that is no service, and a pod by its own address."""
    backend = scene.backends["pod", family]
    answer = inside(lambda: ask(backend, TCP, port=8080), namespace=scene.client)
    assert answer.split()[:2] == [backend, CLIENT[family]]
    with pytest.raises(ConnectionRefusedError):
        inside(lambda: ask(NODE[family], TCP, port=NODE_PORT + 1), namespace=scene.client)


@FAMILIES
@KINDS
@pytest.mark.parametrize("node_port", [False, True], ids=["address", "node-port"])
@pytest.mark.parametrize("where", ["guest", "pod", "neighbour", "remote"])
def test_a_guest_behind_a_bridge_is_served(scene: Scene, family, kind, node_port, where):
    """By one behind the same bridge, too, which would carry the answer past us: it goes by way of
    the node."""
    scene.serve(family, kind, where)
    target = (BRIDGE[family], NODE_PORT) if node_port else (VIP[family], 80)
    scene.node.know(BRIDGE[family], HOST)
    scene.node.know(SERVING_GUEST[family], 0x1000B)
    own = {"guest": BRIDGE[family], "pod": GUEST[family]}
    for _ in range(3):
        answer = inside(lambda: ask(target[0], kind, port=target[1]), namespace=scene.guest)
        source = own.get(where) or scene.sources[where, family]
        assert answer.split()[:2] == [scene.backends[where, family], source]


def test_frames_to_the_address_of_a_bridges_port_are_served_too(scene: Scene):
    """They are the bridge's, which has another address."""
    scene.serve(4, TCP, "neighbour")
    mac = inside(lambda: mac_of("port0"), namespace=scene.node.namespace)
    assert mac != inside(lambda: mac_of("lan"), namespace=scene.node.namespace)
    neighbour = ["ip", "-n", scene.guest, "neigh", "replace", BRIDGE[4], "dev", "eth0"]
    subprocess.run([*neighbour, "lladdr", mac, "nud", "permanent"], check=True)
    try:
        answer = inside(lambda: ask(VIP[4], TCP), namespace=scene.guest)
    finally:
        subprocess.run([*neighbour, "nud", "stale"], check=True)
    assert answer.split()[0] == NEIGHBOUR[4]


def mac_of(device: str) -> str:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as asking:
        asking.bind((device, 0))
        return asking.getsockname()[4].hex(":")


@FAMILIES
def test_a_client_outside_keeps_its_address_with_a_guest(scene: Scene, family):
    scene.serve(family, TCP, "guest")
    answer = scene.ask(family, TCP, node_port=True)
    assert answer == [SERVING_GUEST[family], CLIENT[family]]


def wiretap() -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
    made.bind(("wire", 0x0800))
    made.settimeout(5)
    return made


def outer_source(tap: socket.socket) -> str:
    """Where the tunnel's next packet comes from."""
    while True:
        packet = tap.recv(100)
        if packet[9] == UDP_PROTOCOL and packet[22:24] == TUNNEL_PORT.to_bytes(2, "big"):
            return socket.inet_ntoa(packet[12:16])


@KINDS
def test_another_programs_tunnel_keeps_its_own_source(scene: Scene, kind):
    scene.serve(4, kind, "tunnel")
    with scene.neighbour.run(wiretap) as tap:
        answer = scene.ask(4, kind, node_port=True)
        assert answer == [BEHIND_TUNNEL, TUNNEL]
        assert outer_source(tap) == SECOND_UNDERLAY


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


@FAMILIES
def test_what_a_server_sends_long_after_the_clients_end_arrives(scene: Scene, family):
    """The agent's walk comes 1,000 seconds later, where somebody else serves, too: packets of a
    connection that is not known any more would be theirs, and be reset."""
    address, port, late = scene.backends["pod", family], 8081, b"late" * 50_000
    number = scene.lab.backend(address, TCP, port=port)
    scene.lab.service(VIP[family], TCP, [number])
    state = scene.node.datapath.state
    state.configure(cluster_id=1, stale_after=600 * 10**9)
    state.stamp(time.monotonic_ns())
    walk = Balancing(scene.balancer, [], interval=1, clock=lambda: time.monotonic() + 1000)
    with ExitStack() as stack:
        server = stack.enter_context(scene.node.run_pod(lambda: listen_at(address, port)))
        client = stack.enter_context(
            inside(lambda: socket.socket(family_of(address), TCP), namespace=scene.client)
        )
        client.settimeout(10)
        client.connect((VIP[family], 80))
        accepted = stack.enter_context(server.accept()[0])
        accepted.settimeout(10)
        client.shutdown(socket.SHUT_WR)
        assert accepted.recv(1) == b""
        assert asyncio.run(walk.collect()) == 0
        accepted.sendall(late)
        accepted.close()
        with client.makefile("rb") as heard:
            assert heard.read() == late
    state.configure(cluster_id=1)
    state.never_stale()


def listen_at(address: str, port: int) -> socket.socket:
    server = socket.socket(family_of(address), TCP)
    server.settimeout(10)
    server.bind((address, port))
    server.listen()
    return server


def exchange_large(target: str, port: int, size: int) -> int:
    """How much came back; asked again, as programs do, since over IPv6 only who sends makes parts:
    either side first has to be told how small they must be."""
    with socket.socket(family_of(target), UDP) as client:
        client.settimeout(2)
        client.connect((target, port))
        for _ in range(10):
            client.send(bytes(size))
            with suppress(TimeoutError):
                return len(client.recv(65536))
    return 0


@FAMILIES
@pytest.mark.parametrize("where", ["pod", "neighbour", "remote"])
def test_large_datagrams_go_and_come_in_parts(scene: Scene, family, where):
    scene.serve(family, UDP, where)
    got = inside(lambda: exchange_large(NODE[family], NODE_PORT, 6000), namespace=scene.client)
    assert got > 6000
