"""A whole agent that serves clients outside of the cluster, on the device that it was told."""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from clustermesh import local
from clustermesh.local import Frontend, LocalBackend, LocalService, NamedPort, Scope
from clustermesh.meshctl.bpf import read_connections
from clustermesh.meshctl.pins import Here
from kvstore.client import PutOp
from tests.support.agent_process import NODE_IP, Place, agent, own_cluster, place
from tests.support.bpf import inside, netns
from tests.support.bpf_services import ask, serving
from tests.support.etcd import Etcd

pytestmark = [pytest.mark.root, pytest.mark.etcd]

HERE, THERE = "10.1.0.9", "10.1.0.77"
VIP, NODE_PORT = "10.96.0.99", 30080
ELSEWHERE_VIP, ELSEWHERE_PORT = "10.96.0.98", 30081
CLIENT, GATEWAY = "203.0.113.9", "203.0.113.1"


def service(name: str, vip: str, port: int, backend: str, node: str) -> LocalService:
    """One that is served from outside by backends of the client's node only."""
    return LocalService(
        namespace="shop",
        name=name,
        frontends=(
            Frontend(address=vip, port=80, name="http"),
            Frontend(port=port, name="http", scope=Scope.NODE_PORT),
        ),
        backends=(
            LocalBackend(address=backend, ports=(NamedPort("http", "TCP", 8080),), node=node),
        ),
        external_traffic_policy="Local",
    )


SERVICES = (
    service("here", VIP, NODE_PORT, HERE, "node-a"),
    service("elsewhere", ELSEWHERE_VIP, ELSEWHERE_PORT, THERE, "node-b"),
)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Place]:
    with place(tmp_path) as made:
        made.run("ip", "addr", "add", f"{HERE}/32", "dev", "lo")
        yield made


@pytest.fixture
def own(node: Place) -> Iterator[Etcd]:
    with node.etcd() as etcd:
        told = [PutOp(local.key_of(it), local.encode(it)) for it in SERVICES]
        node.write(etcd, [*told, *own_cluster({})])
        yield etcd


@contextmanager
def outside(node: Place) -> Iterator[str]:
    """A client on a network that the node's uplink leads to."""
    name = f"cm-test-{os.getpid()}-outside"
    with netns(name):
        words = f"link add uplink type veth peer name eth0 netns {name}"
        node.run("ip", *words.split())
        node.run("ip", "addr", "add", f"{GATEWAY}/24", "dev", "uplink")
        node.run("ip", "link", "set", "uplink", "up")
        for line in (
            f"addr add {CLIENT}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {GATEWAY}",
        ):
            subprocess.run(["ip", "-n", name, *line.split()], check=True)
        yield name


def answer(client: str, address: str, port: int) -> str:
    """Who answers, or what became of it."""
    try:
        return inside(partial(ask, address, socket.SOCK_STREAM, port=port), namespace=client)
    except OSError as error:
        return type(error).__name__


def frontends(node: Place) -> set[str]:
    return {row["frontend"] for row in node.ask("/v1/services")}


def test_clients_outside_are_served_as_the_policy_says(node: Place, own: Etcd) -> None:
    options = ("--lb-devices", "uplink", "--lb-gc-interval", "0.2", "--cilium-pins")
    balancing, theirs = node.arguments(own, *options), node.bpf / "tc" / "globals"
    with serving(node.name, [HERE]), agent(node, balancing) as running:
        running.until(lambda: "uplink" in str(node.ask("/v1/status")["trouble"]))
        with outside(node) as client:
            running.until(lambda: node.ask("/v1/status")["trouble"] == [])
            running.until(lambda: answer(client, VIP, 80) == HERE)
            assert answer(client, NODE_IP, NODE_PORT) == HERE
            assert answer(client, NODE_IP, ELSEWHERE_PORT) == "ConnectionRefusedError"
            assert {"0.0.0.0:30081/TCP", "0.0.0.0:30081/TCP/i"} <= frontends(node)
            assert node.ask("/v1/audit")["differences"] == []
            asked = [way for way, _ in read_connections(Here(node.bpf)) if "SVC" in way]
            assert any(way.endswith(f"-> {NODE_IP}:{NODE_PORT}") for way in asked)
            assert (theirs / "cilium_ct4_global").exists()
            told = node.ask("/metrics")
            assert 'program_runs_total{program="cm_lb_ingress"}' in told
            assert 'connections_max{map="cilium_ct4_global"} 1024.0' in told
            assert running.stop() == 0
            assert answer(client, NODE_IP, NODE_PORT) == HERE, "it goes on without the agent"
            with agent(node, node.arguments(own)):
                assert not (node.bpf / "clustermesh" / "lb").exists()
                assert list(theirs.iterdir()) == []
                assert read_connections(Here(node.bpf)) == []
                assert answer(client, NODE_IP, NODE_PORT) == "ConnectionRefusedError"
