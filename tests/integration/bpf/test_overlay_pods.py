"""Pods behind nodes: large packets find the way through a smaller overlay, in both families."""

import socket
import threading
from pathlib import Path

import pytest

from bpf.counters import Reason
from tests.support.bpf_nodes import PORT, Node, arrives, family_of, listen, say, two_nodes

pytestmark = pytest.mark.root

AMOUNT = 10 * 1024 * 1024
IP_MTU, IPV6_MTU, IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, DO = 14, 24, 10, 23, 2


@pytest.fixture
def nodes(tmp_path: Path):
    """Pods with jumbo frames over an underlay without."""
    with two_nodes(tmp_path, pod_mtu=9001) as pair:
        yield pair


FAMILIES = pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])


def transfer(sender: Node, receiver: Node, *, v6: bool) -> int:
    """Sends AMOUNT from pod to pod; how many bytes arrived."""
    source, target = (sender.pod6, receiver.pod6) if v6 else (sender.pod4, receiver.pod4)
    server = receiver.run_pod(lambda: listen(target, socket.SOCK_STREAM))
    client = sender.run_pod(lambda: say(source, target, socket.SOCK_STREAM))
    received = 0
    with server, server.accept()[0] as accepted:
        accepted.settimeout(20)

        def send() -> None:
            with client:
                client.settimeout(20)
                client.sendall(bytes(AMOUNT))

        thread = threading.Thread(target=send)
        thread.start()
        while data := accepted.recv(1 << 20):
            received += len(data)
        thread.join()
    return received - len(b"over the mesh")


@FAMILIES
@pytest.mark.parametrize("mss", [0, 1410], ids=["path-mtu", "clamped"])
def test_a_pod_with_jumbo_frames_transfers_ten_megabytes(nodes, v6, mss):
    one, two = nodes
    for node in nodes:
        node.datapath.state.configure(mss=mss)
    assert transfer(one, two, v6=v6) == AMOUNT
    assert transfer(two, one, v6=v6) == AMOUNT


@FAMILIES
def test_a_datagram_that_does_not_fit_is_answered_with_the_size_that_does(nodes, v6):
    one, two = nodes
    target = two.pod6 if v6 else two.pod4
    level = socket.IPPROTO_IPV6 if v6 else socket.IPPROTO_IP
    discover, mtu = (IPV6_MTU_DISCOVER, IPV6_MTU) if v6 else (IP_MTU_DISCOVER, IP_MTU)

    def probe() -> int:
        with socket.socket(family_of(target), socket.SOCK_DGRAM) as client:
            client.settimeout(10)
            client.setsockopt(level, discover, DO)
            client.connect((target, PORT))
            client.send(bytes(4000))  # fits the pod's own device, and is answered by the node
            with pytest.raises(OSError, match="Message too long"):
                client.send(bytes(4000))
            return client.getsockopt(level, mtu)

    assert one.run_pod(probe) == 1450


@FAMILIES
def test_a_pod_learns_at_once_that_nobody_has_an_address(nodes, v6):
    one, _ = nodes
    nowhere, source = ("fd00:9::9", one.pod6) if v6 else ("10.9.0.9", one.pod4)
    one.route(nowhere)
    with pytest.raises(OSError, match="No route to host"):
        one.run_pod(lambda: say(source, nowhere, socket.SOCK_STREAM))
    assert one.counted(Reason.DROP_NO_ENDPOINT) > 0


@FAMILIES
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
def test_pods_see_each_others_own_addresses(nodes, v6, kind):
    one, two = nodes
    assert arrives(one, two, v6=v6, kind=kind) == (one.pod6 if v6 else one.pod4)
    assert arrives(two, one, v6=v6, kind=kind) == (two.pod6 if v6 else two.pod4)
