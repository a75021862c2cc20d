"""Without the tunnel: from pods and hosts to pods, hosts and services of another cluster.

IPv4 only: IPv6 keeps the tunnel, since the underlay is IPv4 (docs/datapath.md).
"""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.network.network import reconcile
from agent.network.wanted import Facts, Place
from bpf.counters import Direction, File, Reason
from bpf.layout import MetricsKey
from tests.support.bpf import child_cgroup, inside
from tests.support.bpf_nodes import DEVICE, Node, two_nodes
from tests.support.bpf_services import TCP, UDP, Lab, Servers, ask, running

pytestmark = pytest.mark.root

VIP = "10.96.0.10"
HOSTS = {1: "10.1.0.1", 2: "10.2.0.1"}
"""Overlay addresses, by cluster."""
KINDS = pytest.mark.parametrize("kind", [TCP, UDP], ids=["tcp", "udp"])


class Witnesses(Servers):
    """Answer with who asked."""

    def _answer(self, server: socket.socket, address: str, kind: socket.SocketKind | None) -> None:
        if kind is TCP:
            super()._answer(server, address, kind)
        elif kind is UDP:
            _, peer = server.recvfrom(100)
            server.sendto(f"{address} {peer[0]}".encode(), peer)
        elif server.recv(100):
            server.sendall(f"{address} {server.getpeername()[0]}".encode())
        else:
            super()._answer(server, address, kind)


@dataclass
class Mesh:
    """Two nodes of two clusters, and how a node's programs and pods ask."""

    one: Node
    two: Node
    lab: Lab
    cgroup: Path

    def ask(self, origin: str, address: str, kind: socket.SocketKind) -> list[str]:
        """Who answered, and whom they saw."""
        place = self.one.pod if origin == "pod" else self.one.namespace
        port = 80 if address == VIP else 8080
        answer = inside(lambda: ask(address, kind, port=port), namespace=place, cgroup=self.cgroup)
        return answer.split()


def settle(node: Node, other: Node) -> None:
    far = {f"{other.pod4}/32", f"{HOSTS[other.cluster]}/32"}
    facts = Facts(
        overlay=(HOSTS[node.cluster],),
        gateways=frozenset((it, other.underlay) for it in far),
        direct=frozenset(far),
        destinations=frozenset({*far, f"{other.pod6}/128"}),
        sources=frozenset({f"{node.pod4}/32"}),
        peers=frozenset({other.underlay}),
    )
    place = Place(node_ip=node.underlay)
    done = node.run(lambda: reconcile(place, facts, node.datapath.attach_overlay))
    assert done.troubles == ()


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("native")
        one, two = stack.enter_context(two_nodes(folder, pod_mtu=1500, attached=False))
        for node in (one, two):
            node.ip("link", "del", DEVICE)
            node.ip("address", "add", f"{HOSTS[node.cluster]}/32", "dev", "lo")
        settle(one, two)
        settle(two, one)
        for place, address in ((two.pod, two.pod4), (two.namespace, HOSTS[2])):
            servers = inside(lambda it=address: Witnesses([it]), namespace=place)
            stack.enter_context(running(servers))
        cgroup = stack.enter_context(child_cgroup(f"cm-test-{os.getpid()}-native"))
        one.datapath.attach_sock_lb(cgroup)
        stack.callback(one.datapath.detach_sock_lb)
        one.datapath.state.configure(cluster_id=1)
        lab = Lab(one.datapath, one.namespace, cgroup)
        for kind, rev_nat in ((TCP, 7), (UDP, 8)):
            backend = lab.backend(two.pod4, kind, cluster=2)
            lab.service(VIP, kind, [backend], rev_nat=rev_nat)
        yield Mesh(one, two, lab, cgroup)


@KINDS
@pytest.mark.parametrize("origin", ["pod", "host"])
@pytest.mark.parametrize("target", ["pod", "host", "service"])
def test_everybody_is_reached_and_seen_as_who_they_are(
    mesh: Mesh, kind: socket.SocketKind, origin: str, target: str
) -> None:
    address = {"pod": mesh.two.pod4, "host": HOSTS[2], "service": VIP}[target]
    answered_by = mesh.two.pod4 if target == "service" else address
    seen_as = mesh.one.pod4 if origin == "pod" else HOSTS[1]
    assert mesh.ask(origin, address, kind) == [answered_by, seen_as]
    assert by_overlay(mesh.one) == by_overlay(mesh.two) == [], "the tunnel was not used"


def by_overlay(node: Node) -> list[MetricsKey]:
    """What its overlay's programs have counted, but for the kernel's own multicast (MLD) on a
    device that has just come up: it leads to nobody."""
    keys = map(MetricsKey.unpack, node.datapath.maps.metrics.read())
    own = (Reason.DROP_UNROUTABLE, Direction.EGRESS)
    return [key for key in keys if key.file == File.OVERLAY and (key.reason, key.direction) != own]
