"""Through our overlay against the kernel's plain VXLAN; a service against its backend.

`python tests/bench/bpf/overlay.py [--parts pods,hosts]`. Two devices on the same wire: ours with
its programs, and an ordinary one with a fixed remote and number, everything static. Pods are
namespaces behind their nodes' veths, as a CNI makes them; between hosts there is nothing but the
devices, so that what they cost is seen at its largest. A global service of one remote backend,
through our overlay, against connections to that backend's own address.

Ratios are medians [where the median is with 95 % certainty] (quartiles).
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.bench.bpf import rounds
from tests.support.bpf import child_cgroup, own_cgroup
from tests.support.bpf_nodes import Node, family_of, two_nodes
from tests.support.bpf_services import TCP, UDP, Lab

PLAIN = {1: ("10.11.0.1", "fd00:11::1"), 2: ("10.11.0.2", "fd00:11::2")}
VIP = ("10.96.0.10", "fd00:96::a")
PORT = 8080
TABLE = 1021
MTU = 1450


def add_plain(node: Node, other: Node) -> None:
    """The kernel's VXLAN with everything static: no programs, no learning, no neighbours, and as
    with ours no sum over the outer packet. The pod, or the node, has a second address for it."""
    node.ip(
        *("link", "add", "plain", "mtu", "1450", "type", "vxlan", "id", "42"),
        *(
            "remote",
            other.underlay,
            "local",
            node.underlay,
            "dstport",
            "4789",
            "nolearning",
            "noudpcsum",
        ),
    )
    for address in PLAIN[node.cluster]:
        if node.pod == node.namespace:
            node.ip("address", "add", address, "dev", "lo")
            continue
        host = f"{address}/{128 if ':' in address else 32}"
        add = ["ip", "-n", node.pod, "address", "add", host, "dev", "eth0"]
        subprocess.run([*add, "nodad"] if ":" in address else add, check=True)
        node.ip("route", "add", address, "dev", "pod")
    node.ip("link", "set", "plain", "address", f"02:00:00:00:00:0{node.cluster}", "up")
    for mine, theirs in zip(PLAIN[node.cluster], PLAIN[other.cluster], strict=True):
        hint = ("src", mine) if node.pod == node.namespace else ()
        node.ip("route", "add", theirs, "dev", "plain", *hint)
        neighbour = ("lladdr", f"02:00:00:00:00:0{other.cluster}", "dev", "plain")
        node.ip("neigh", "replace", theirs, *neighbour, "nud", "permanent")


@dataclass(frozen=True)
class Servers:
    """What listens at one address of the second node."""

    tcp: socket.socket
    udp: socket.socket


def serve(stack: ExitStack, two: Node, address: str) -> Servers:
    made = []
    for kind in (TCP, UDP):
        server = two.run_pod(lambda kind=kind: socket.socket(family_of(address), kind))
        stack.enter_context(server)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, PORT))
        made.append(server)
    made[0].listen(1024)
    return Servers(*made)


@dataclass(frozen=True)
class Way:
    """From the first node to a server, by an address that leads there."""

    one: Node
    servers: Servers
    source: str
    target: str
    cgroup: Path | None = None

    def socket(self, kind: socket.SocketKind) -> socket.socket:
        """Made where its connections are translated, or where they are not."""
        made = self.one.run_pod(lambda: socket.socket(family_of(self.target), kind))
        made.bind((self.source, 0))
        return made

    def enter(self) -> None:
        """Sockets made from now on belong to the group of this way."""
        group = self.cgroup or OUTSIDE
        (group / "cgroup.procs").write_text(str(os.getpid()))

    def burst(self, stack: ExitStack) -> Callable[[], object]:
        self.enter()
        client = stack.enter_context(self.socket(TCP))
        client.connect((self.target, PORT))
        return rounds.burst(client, stack.enter_context(self.servers.tcp.accept()[0]))

    def questions(self, stack: ExitStack) -> Callable[[], object]:
        self.enter()
        client = stack.enter_context(self.socket(UDP))
        client.connect((self.target, PORT))
        return rounds.questions(client, self.servers.udp)

    def unconnected(self, stack: ExitStack) -> Callable[[], object]:
        self.enter()
        client = stack.enter_context(self.socket(UDP))
        return rounds.unconnected(client, self.servers.udp, (self.target, PORT))

    def connections(self, _: ExitStack) -> Callable[[], object]:
        family = family_of(self.target)

        def work() -> None:
            self.one.run_pod(
                rounds.connections(
                    lambda: socket.socket(family, TCP), (self.target, PORT), self.servers.tcp
                )
            )

        return work


OUTSIDE = own_cgroup()
KINDS: dict[str, tuple[Callable[[Way, ExitStack], Callable[[], object]], str, float]] = {
    "TCP, one stream": (Way.burst, "Gbit/s", rounds.BURST * 8 / 1e9),
    "UDP, a round trip": (Way.questions, "us", 1e6 / rounds.QUESTIONS),
    "UDP, not connected": (Way.unconnected, "us", 1e6 / rounds.QUESTIONS),
    "TCP, a connection": (Way.connections, "us", 1e6 / rounds.CONNECTIONS),
}


def compare(label: str, ways: Mapping[str, Way], count: int) -> None:
    """All kinds of work, each by all ways in turns; the last way is the reference."""
    for kind, (make, unit, scale) in KINDS.items():
        with ExitStack() as stack:
            works = {name: make(way, stack) for name, way in ways.items()}
            entering = {name: way.enter for name, way in ways.items()}
            table = rounds.in_turns(works, count, before=entering)
        as_figure = partial(_figure, unit=unit, scale=scale)
        table.show(f"{label} {kind}", as_figure, unit)


def _figure(seconds: float, *, unit: str, scale: float) -> float:
    return scale / seconds if unit.endswith("/s") else seconds * scale


def measure(stack: ExitStack, count: int, *, pods: bool) -> None:
    """Between pods everything, between hosts the overlay alone."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    one, two = stack.enter_context(two_nodes(folder, pod_mtu=MTU if pods else None))
    cgroup = stack.enter_context(child_cgroup(f"cm-test-{os.getpid()}-bench"))
    stack.callback((OUTSIDE / "cgroup.procs").write_text, str(os.getpid()))
    add_plain(one, two)
    add_plain(two, one)
    one.datapath.attach_sock_lb(cgroup)
    stack.callback(one.datapath.detach_sock_lb)
    lab = Lab(one.datapath, one.namespace, cgroup)
    for at, family in enumerate(("v4", "v6")):
        here, there = (one.pod4, one.pod6)[at], (two.pod4, two.pod6)[at]
        pod = serve(stack, two, there)
        plain = Way(one, serve(stack, two, PLAIN[2][at]), PLAIN[1][at], PLAIN[2][at])
        direct = Way(one, pod, here, there)
        who = "pods" if pods else "hosts"
        compare(f"{who} {family}:", {"ours": direct, "plain": plain}, count)
        if pods:
            for kind in (TCP, UDP):
                number = lab.backend(there, kind, cluster=2)
                how = {"table": [number] * TABLE, "rev_nat": 1 + at, "port": PORT}
                lab.service(VIP[at], kind, [number], **how)
            service = Way(one, pod, here, VIP[at], cgroup)
            compare(f"service {family}:", {"service": service, "direct": direct}, count)
    for program in one.datapath.programs():
        if program.runs:
            took = program.run_seconds / program.runs * 1e9
            print(f"{program.name:20} {took:6.0f} ns a run")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=150)
    parser.add_argument("--parts", default="pods,hosts")
    options = parser.parse_args()
    for part in options.parts.split(","):
        with ExitStack() as stack:
            measure(stack, options.rounds, pods=part == "pods")


if __name__ == "__main__":
    main()
