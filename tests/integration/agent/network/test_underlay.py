"""What a node says of its underlay, and of ports that somebody else has."""

import os
import socket
from collections.abc import Iterator

import pytest

from agent.explain.premises import listening, taken
from agent.network.network import reconcile
from agent.network.underlay import seen
from agent.network.wanted import Facts, Place
from clustermesh.local import Frontend, LocalService, Scope
from tests.support.bpf import inside, netns
from tests.support.netns import Namespace

pytestmark = pytest.mark.root

PLACE = Place(node_ip="192.0.2.1")


@pytest.fixture
def node() -> Iterator[Namespace]:
    with netns(f"cm-test-under-{os.getpid()}") as name:
        made = Namespace(name)
        made.run("ip", "link", "add", "eth0", "mtu", "1500", "type", "veth", "peer", "name", "far0")
        made.run("ip", "link", "set", "eth0", "up")
        made.run("ip", "addr", "add", "192.0.2.1/24", "dev", "eth0")
        yield made


def bring_up(node: Namespace) -> None:
    inside(lambda: reconcile(PLACE, Facts(), lambda _: False), namespace=node.name)


def test_sizes_and_ports_are_those_of_the_kernel(node: Namespace) -> None:
    bring_up(node)
    found = inside(lambda: seen(PLACE), namespace=node.name)
    assert (found.mtu, found.underlay_mtu) == (1450, 1500)
    assert (found.port, found.device_port, found.taken_by) == (8472, 8472, "")
    node.run("ip", "link", "set", "eth0", "mtu", "1400")
    assert inside(lambda: seen(PLACE), namespace=node.name).underlay_mtu == 1400


def test_who_has_the_port_is_named(node: Namespace) -> None:
    flannel = ("flannel.1", "type", "vxlan", "id", "1", "dev", "eth0", "dstport", "8472")
    node.run("ip", "link", "add", *flannel)
    bring_up(node)
    found = inside(lambda: seen(PLACE), namespace=node.name)
    assert found.taken_by == "flannel.1"
    assert found.device_port not in (0, 8472)


def test_a_node_without_its_address_has_no_underlay(node: Namespace) -> None:
    elsewhere = Place(node_ip="192.0.2.99")
    assert inside(lambda: seen(elsewhere), namespace=node.name).underlay_mtu == 0


def test_a_node_port_that_a_process_listens_on_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        ends = (
            Frontend(port=port, scope=Scope.NODE_PORT),
            Frontend(port=port, protocol="UDP", scope=Scope.NODE_PORT),
            Frontend(address="10.0.0.1", port=port),
        )
        service = LocalService(namespace="shop", name="cart", frontends=ends)
        assert list(taken([service], listening())) == [f"{port}/TCP of shop/cart"]
    assert list(taken([service], listening())) == []
