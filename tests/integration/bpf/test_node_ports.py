"""Node ports and external addresses at the socket: on nodes of the own cluster, nowhere else."""

import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bpf import namespace
from bpf.datapath import Datapath, load
from bpf.layout import IpcacheKey, IpcacheValue, NodeValue
from bpf.layout_lb import ServiceFlag
from bpf.specs import DatapathSettings
from tests.support.bpf import child_cgroup, inside, netns
from tests.support.bpf_packets import packed
from tests.support.bpf_services import PORT, TCP, UDP, Lab, ask, family_of, serving

pytestmark = pytest.mark.root

BACKEND4, BACKEND6 = "127.0.1.1", "fd00:1::1"
NODE4, NODE6 = "192.0.2.1", "2001:db8::1"  # this node
NEIGHBOUR, ABROAD, SOMEBODY = "192.0.2.2", "192.0.2.7", "198.51.100.9"
EVERY4, EVERY6 = "0.0.0.0", "::"  # noqa: S104  # keys of entries
NODE_PORT = 30080
HOST, REMOTE_NODE = 1, 6
NODE_PORT_FLAG, EXTERNAL = ServiceFlag.NODE_PORT, ServiceFlag.EXTERNAL_IP

KINDS = pytest.mark.parametrize("kind", [TCP, UDP], ids=["tcp", "udp"])


@pytest.fixture(scope="module")
def place() -> Iterator[str]:
    """Every address is on the loopback device: what is not translated is refused, not lost."""
    name = f"cm-test-{os.getpid()}-ports"
    with netns(name):
        for address in (NODE4, NEIGHBOUR, ABROAD, SOMEBODY):
            subprocess.run(
                ["ip", "-n", name, "addr", "add", f"{address}/32", "dev", "lo"], check=True
            )
        for address in (NODE6, BACKEND6):
            words = ("addr", "add", f"{address}/128", "dev", "lo", "nodad")
            subprocess.run(["ip", "-n", name, *words], check=True)
        with serving(name, [BACKEND4, BACKEND6]):
            yield name


@pytest.fixture
def made(datapath: Datapath, place: str) -> Iterator[Lab]:
    with child_cgroup(f"cm-test-{os.getpid()}-ports") as cgroup:
        yield prepared(Lab(datapath, place, cgroup))
        datapath.detach_sock_lb()


def prepared(lab: Lab) -> Lab:
    maps = lab.datapath.maps
    lab.datapath.attach_sock_lb(lab.cgroup)
    lab.datapath.state.configure(cluster_id=1, stale_after=60 * 10**9)
    for address, identity in (
        (NODE4, HOST), (NODE6, HOST), (NEIGHBOUR, REMOTE_NODE), (ABROAD, REMOTE_NODE),
    ):  # fmt: skip
        raw = packed(address)
        key, value = IpcacheKey(raw, len(raw) * 8), IpcacheValue(identity)
        maps.ipcache.put_many([(key.pack(), value.pack())])
    maps.nodes.put_many(
        [
            (packed(NEIGHBOUR), NodeValue.of_cluster(1).pack()),
            (packed(ABROAD), NodeValue.of_cluster(2).pack()),
        ]
    )
    for kind in (TCP, UDP):
        ids = {address: lab.backend(address, kind) for address in (BACKEND4, BACKEND6)}
        number = 10 + kind
        for at, (every, backend) in enumerate(((EVERY4, BACKEND4), (EVERY6, BACKEND6))):
            how = {"rev_nat": number + 10 * at, "flags": NODE_PORT_FLAG, "port": NODE_PORT}
            lab.service(every, kind, [ids[backend]], **how)
        for at, external in enumerate((NODE4, SOMEBODY)):
            lab.service(external, kind, [ids[BACKEND4]], rev_nat=number + 20 + at, flags=EXTERNAL)
    return lab


def refused(address: str, kind: socket.SocketKind, port: int) -> None:
    with pytest.raises(ConnectionRefusedError):
        ask(address, kind, port=port)


@KINDS
@pytest.mark.parametrize(
    ("node", "backend"), [(NODE4, BACKEND4), (NEIGHBOUR, BACKEND4), (NODE6, BACKEND6)]
)
def test_a_node_port_is_on_every_node_of_the_own_cluster(made: Lab, kind, node, backend):
    assert made.run(lambda: ask(node, kind, port=NODE_PORT)) == backend


@KINDS
@pytest.mark.parametrize("address", [ABROAD, SOMEBODY])
def test_a_node_port_is_nowhere_else(made: Lab, kind, address):
    made.run(lambda: refused(address, kind, NODE_PORT))


@KINDS
@pytest.mark.parametrize("port", [NODE_PORT + 1, 29999, 32768])
def test_other_ports_of_a_node_are_left_alone(made: Lab, kind, port):
    made.run(lambda: refused(NODE4, kind, port))


@KINDS
def test_an_external_address_counts_where_it_is_a_nodes(made: Lab, kind):
    assert made.run(lambda: ask(NODE4, kind)) == BACKEND4
    made.run(lambda: refused(SOMEBODY, kind, PORT))


@KINDS
@pytest.mark.parametrize("node", [NODE4, NODE6])
def test_the_peer_is_the_node_that_was_asked(made: Lab, kind, node):
    def peer() -> tuple[str, int]:
        with socket.socket(family_of(node), kind) as client:
            client.connect((node, NODE_PORT))
            return client.getpeername()[:2]

    assert made.run(peer) == (node, NODE_PORT)


@pytest.mark.parametrize("node", [NODE4, NEIGHBOUR, NODE6])
def test_an_answer_comes_from_the_node_that_was_asked(made: Lab, node):
    def answer() -> tuple[str, int]:
        with socket.socket(family_of(node), UDP) as client:
            client.settimeout(5)
            client.sendto(b"who", (node, NODE_PORT))
            return client.recvfrom(100)[1][:2]

    assert made.run(answer) == (node, NODE_PORT)


@KINDS
@pytest.mark.parametrize(
    ("loopback", "backend"),
    [("127.0.0.1", BACKEND4), ("::1", BACKEND6), (EVERY4, BACKEND4), (EVERY6, BACKEND6)],
)
def test_only_the_hosts_loopback_has_node_ports(
    bpffs: Path, settings: DatapathSettings, place: str, kind, loopback, backend
):
    cookie = inside(namespace.cookie, namespace=place)
    with child_cgroup(f"cm-test-{os.getpid()}-loop") as cgroup:
        for host, expected in ((cookie, backend), (cookie + 1, None), (0, None)):
            with load(bpffs / "clustermesh", replace(settings, host_netns=host)) as datapath:
                lab = prepared(Lab(datapath, place, cgroup))
                if expected is None:
                    lab.run(lambda: refused(loopback, kind, NODE_PORT))
                else:
                    assert lab.run(lambda: ask(loopback, kind, port=NODE_PORT)) == expected
                datapath.detach_sock_lb()


def test_namespaces_have_numbers_of_their_own(place: str):
    there = inside(namespace.cookie, namespace=place)
    assert there == inside(namespace.cookie, namespace=place)
    assert there != namespace.cookie()
