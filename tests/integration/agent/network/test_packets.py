"""What other programs on a node do to packets, and that pods of the mesh do not notice."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import unpack_from

import pytest

from agent.network.network import Round, reconcile
from agent.network.wanted import Facts, Place
from tests.support.bpf_nodes import DEVICE, PORT, Node, arrives, two_nodes

pytestmark = pytest.mark.root

FAMILIES = pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
WIRE_PORT = 8472
ALL_PROTOCOLS = 0x0003
Pair = tuple[Node, Node]


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Pair]:
    """Pods behind nodes whose network is ours alone."""
    with two_nodes(tmp_path, pod_mtu=1500, attached=False) as pair:
        for node in pair:
            node.ip("link", "del", DEVICE)
        yield pair


def settle(pair: Pair, *, native: bool = False) -> list[Round]:
    one, two = pair
    return [_round(one, two, native=native), _round(two, one, native=native)]


def _round(node: Node, other: Node, *, native: bool = False) -> Round:
    direct = {f"{other.pod4}/32": other.underlay} if native else {}
    facts = Facts(
        gateways=frozenset(direct.items()),
        direct=frozenset(direct),
        destinations=frozenset({f"{other.pod4}/32", f"{other.pod6}/128"}),
        sources=frozenset({f"{node.pod4}/32", f"{node.pod6}/128"}),
        peers=frozenset({other.underlay}),
    )
    place = Place(node_ip=node.underlay)
    return node.run(lambda: reconcile(place, facts, node.datapath.attach_overlay))


def nft(node: Node, *commands: str) -> None:
    base = ["nsenter", f"--net=/run/netns/{node.namespace}", "nft"]
    for command in commands:
        subprocess.run([*base, command], check=True)


def masquerade(node: Node) -> None:
    """What a CNI or kube-proxy does to pods that leave the node."""
    nft(
        node,
        "add table inet cni",
        "add chain inet cni post { type nat hook postrouting priority 100; policy accept; }",
        f"add rule inet cni post ip saddr {node.pod4} masquerade",
        f"add rule inet cni post ip6 saddr {node.pod6} masquerade",
    )


@FAMILIES
def test_pods_reach_pods_over_what_one_round_made(nodes: Pair, v6: bool) -> None:
    for done in settle(nodes):
        assert done.troubles == ()
    one, two = nodes
    assert arrives(one, two, v6=v6, kind=socket.SOCK_STREAM) == (one.pod6 if v6 else one.pod4)
    assert arrives(two, one, v6=v6, kind=socket.SOCK_DGRAM) == (two.pod6 if v6 else two.pod4)
    assert [done.writes for done in settle(nodes)] == [0, 0]


def test_without_the_tunnel_pods_reach_pods_and_the_wire_carries_their_own_packets(
    nodes: Pair,
) -> None:
    one, two = nodes
    for node in nodes:
        masquerade(node)
    assert [done.troubles for done in settle(nodes, native=True)] == [(), ()]
    with wire(two) as tunnelled:
        assert arrives(one, two, v6=False, kind=socket.SOCK_STREAM) == one.pod4
        assert arrives(two, one, v6=False, kind=socket.SOCK_DGRAM) == two.pod4
    assert {port for _, port in tunnelled} == {PORT}
    assert one.counted(0) == two.counted(0) == 0
    with wire(two) as tunnelled:
        assert arrives(one, two, v6=True, kind=socket.SOCK_STREAM) == one.pod6
    assert WIRE_PORT in {port for _, port in tunnelled}
    assert [done.writes for done in settle(nodes, native=True)] == [0, 0]


@FAMILIES
def test_a_foreign_masquerade_does_not_hide_the_pod(nodes: Pair, v6: bool) -> None:
    one, two = nodes
    masquerade(one)
    settle(nodes)
    pod = one.pod6 if v6 else one.pod4
    assert arrives(one, two, v6=v6, kind=socket.SOCK_STREAM) == pod
    assert arrives(one, two, v6=v6, kind=socket.SOCK_DGRAM) == pod


def test_that_masquerade_would_hide_it(nodes: Pair) -> None:
    """Without our table it is the node that the other side sees."""
    one, two = nodes
    masquerade(one)
    settle(nodes)
    nft(one, "delete table inet clustermesh")
    assert arrives(one, two, v6=False, kind=socket.SOCK_STREAM) == one.underlay


def flannel(node: Node) -> None:
    how = ("id", "1", "local", node.underlay, "dstport", str(WIRE_PORT), "nolearning")
    node.ip("link", "add", "flannel.1", "type", "vxlan", *how)


@contextmanager
def wire(node: Node) -> Iterator[set[tuple[str, int]]]:
    """Source address and UDP port of tunnel packets that a node's wire carries meanwhile."""
    sniffer = node.run(
        lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS))
    )
    seen: set[tuple[str, int]] = set()
    with sniffer:
        sniffer.setblocking(False)
        sniffer.bind(("wire", 0))
        yield seen
        while True:
            try:
                frame = sniffer.recv(65536)
            except BlockingIOError:
                return
            if len(frame) > 42 and frame[12:14] == b"\x08\x00" and frame[23] == 17:
                seen.add((socket.inet_ntoa(frame[26:30]), unpack_from("!H", frame, 36)[0]))


@pytest.mark.parametrize("first", ["flannel", "ours"])
@FAMILIES
def test_beside_flannel_the_wire_keeps_its_port(nodes: Pair, v6: bool, first: str) -> None:
    one, two = nodes
    if first == "ours":
        settle(nodes)
    flannel(one)
    settle(nodes)
    one.ip("link", "set", "flannel.1", "up")
    assert [done.writes for done in settle(nodes)] == [0, 0]
    pods = [(it.pod6 if v6 else it.pod4) for it in nodes]
    with wire(two) as ports:
        assert arrives(one, two, v6=v6, kind=socket.SOCK_STREAM) == pods[0]
        assert arrives(two, one, v6=v6, kind=socket.SOCK_STREAM) == pods[1]
        assert arrives(one, two, v6=v6, kind=socket.SOCK_DGRAM) == pods[0]
    assert ports == {(one.underlay, WIRE_PORT), (two.underlay, WIRE_PORT)}


def test_a_device_that_somebody_replaced_carries_our_programs_again(nodes: Pair) -> None:
    settle(nodes)
    one, two = nodes
    one.ip("link", "del", "cm_vxlan")
    assert _round(one, two).writes > 0
    assert arrives(one, two, v6=False, kind=socket.SOCK_STREAM) == one.pod4
