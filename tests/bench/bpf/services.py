"""New connections: direct, by our socket programs, and by nftables rules of kube-proxy's shape.

`python tests/bench/bpf/services.py`. Microseconds per connection (handshake and close) from a
client to a server in the next namespace; CPU is the client's and the server's. All of it is there
at once and takes turns (rounds.py), so that ways can be compared with each other: three data paths
with 10, 1,000 and 10,000 services on control groups of their own, three namespaces whose rules have
as many, and one without either. A connection goes to the next service each time, and with 10,000
also to one and the same: what a table costs, without what its memory costs.

Ratios are medians [where the median is with 95 % certainty] (quartiles). And what one run of the
connect program takes, by the kernel's own clock.
"""

import argparse
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from bpf import syscalls
from bpf.datapath import Datapath, load
from bpf.layout_lb import (
    BackendValue,
    ServiceKey,
    ServiceValue,
    pack_backend_id,
    pack_rev_nat,
    pack_table,
)
from bpf.specs import DatapathSettings
from tests.bench.bpf.rounds import Table, in_turns, reset_at_end
from tests.support.bpf import child_cgroup, inside, netns, own_cgroup, private_bpffs
from tests.support.bpf_packets import packed

SERVER, PORT = "192.168.78.2", 8080
COUNTS = (10, 1_000, 10_000)
CONNECTIONS = 50
BATCH = 200
ONE = f"{COUNTS[-1]:,} (one)"


def vip(number: int, base: str = "10.96") -> str:
    return f"{base}.{number >> 8}.{number & 255}"


def fill(datapath: Datapath, count: int) -> None:
    """That many services with two backends each; all backends are the one server."""
    maps = datapath.maps
    maps.backends4.put_many(
        [(pack_backend_id(n), BackendValue(packed(SERVER), PORT, 6).pack()) for n in (1, 2)]
    )
    entries = []
    for n in range(count):
        address = packed(vip(n))
        for slot in (1, 2):
            key, value = ServiceKey(address, 80, 6, slot), ServiceValue(slot, 0, n + 1)
            entries.append((key.pack(), value.pack()))
        entries.append((ServiceKey(address, 80, 6).pack(), ServiceValue(0, 2, n + 1).pack()))
    maps.services4.put_many(entries)
    table = pack_table([1 + n % 2 for n in range(1021)])
    maps.tables4.swap([pack_rev_nat(n + 1) for n in range(count)], table)


def nft_rules(count: int) -> str:
    """A verdict map from address, protocol and port to a chain that draws among two endpoints'."""
    lines = ["table ip proxy {"]
    for n in range(count):
        lines += [
            f" chain e{n} {{",
            f"  meta l4proto tcp dnat to {SERVER}:{PORT}",
            " }",
            f" chain s{n} {{",
            f"  numgen random mod 2 vmap {{ 0 : goto e{n}, 1 : goto e{n} }}",
            " }",
        ]
    pairs = ", ".join(f"{vip(n, '10.97')} . tcp . 80 : goto s{n}" for n in range(count))
    lines += [
        " map services { type ipv4_addr . inet_proto . inet_service : verdict;",
        f"  elements = {{ {pairs} }} }}",
        " chain output { type nat hook output priority -100;",
        "  ip daddr . meta l4proto . th dport vmap @services",
        " }",
        "}",
    ]
    return "\n".join(lines)


def serve(stop: socket.socket) -> None:
    ready = selectors.DefaultSelector()
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((SERVER, PORT))
    server.listen(4096)
    ready.register(server, selectors.EVENT_READ)
    ready.register(stop, selectors.EVENT_READ)
    with ready, server:
        while True:
            for key, _ in ready.select():
                if key.fileobj is stop:
                    return
                server.accept()[0].close()


OUTSIDE = own_cgroup()


def enter(group: Path) -> None:
    """Sockets made from now on belong to this control group."""
    (group / "cgroup.procs").write_text(str(os.getpid()))


def connect_many(targets: Sequence[tuple[str, int]]) -> None:
    for target in targets:
        with socket.socket() as client:
            reset_at_end(client)
            client.connect(target)


def program_time(datapath: Datapath, client: str, cgroup: Path, count: int) -> float:
    """Nanoseconds of a run of the connect program by the kernel's clock: the least of some batches,
    since interruptions are counted, too; on their own, since counting costs something."""

    def runs() -> tuple[int, float]:
        found = next(it for it in datapath.programs() if it.name == "cm_connect4")
        return found.runs, found.run_seconds

    def batch() -> float:
        before = runs()
        inside(lambda: connect_many(targets), namespace=client)
        after = runs()
        return (after[1] - before[1]) / (after[0] - before[0]) * 1e9

    targets = [(vip(n * 7 % count), 80) for n in range(BATCH)]
    enter(cgroup)
    counting = syscalls.count_runs()
    try:
        return min(batch() for _ in range(20))
    finally:
        os.close(counting)
        enter(OUTSIDE)


@dataclass
class Way:
    """Connections from a namespace and a control group, to the next of its services each time."""

    client: str
    targets: Sequence[str]
    port: int = 80
    cgroup: Path = OUTSIDE
    at: int = 0

    def work(self) -> None:
        them = [self.targets[(self.at + n) % len(self.targets)] for n in range(CONNECTIONS)]
        self.at = (self.at + CONNECTIONS) % len(self.targets)
        inside(lambda: connect_many([(it, self.port) for it in them]), namespace=self.client)


@contextmanager
def clients(server: str, names: Sequence[str]) -> Iterator[None]:
    """A namespace each, on a wire to the server's."""
    subprocess.run(["ip", "-n", server, "address", "add", SERVER, "dev", "lo"], check=True)
    with ExitStack() as stack:
        for n, name in enumerate(names):
            client = stack.enter_context(netns(name))
            for line in (
                f"-n {client} link add wire type veth peer name wire{n} netns {server}",
                f"-n {client} address add 192.168.79.{4 * n + 1}/30 dev wire",
                f"-n {server} address add 192.168.79.{4 * n + 2}/30 dev wire{n}",
                f"-n {client} link set wire up",
                f"-n {server} link set wire{n} up",
                f"-n {client} route add default via 192.168.79.{4 * n + 2}",
            ):
                subprocess.run(["ip", *line.split()], check=True)
        yield


def load_rules(client: str, count: int) -> None:
    rules = nft_rules(count)
    nft = partial(subprocess.run, ["nft", "-f", "-"], input=rules, text=True, check=True)
    inside(nft, namespace=client)


def sockets(stack: ExitStack, folder: Path, tag: str, count: int) -> tuple[Datapath, Path]:
    """A data path with so many services, on a control group of its own."""
    cgroup = stack.enter_context(child_cgroup(f"{tag}-{count}"))
    bpffs = stack.enter_context(private_bpffs(folder / f"bpf{count}"))
    datapath = stack.enter_context(load(bpffs / "clustermesh", DatapathSettings()))
    fill(datapath, count)
    datapath.attach_sock_lb(cgroup)
    stack.callback(datapath.detach_sock_lb)
    return datapath, cgroup


def show(table: Table) -> None:
    """Each way against a direct connection, and against itself with fewer services."""
    for name in table.seen:
        took = table.median(name) / CONNECTIONS * 1e6
        print(f"{name:24} {took:6.1f} us a connection", end="")
        against = ["direct"] if name != "direct" else []
        kind, _, size = name.partition(" ")
        if size and size != f"{COUNTS[0]:,}":
            against.append(f"{kind} {COUNTS[0]:,}")
        for other in against:
            wall, cpu = (table.ratio(name, other, of) for of in ("wall", "cpu"))
            print(f"   / {other}: time {wall}, CPU {cpu}", end="")
        print(flush=True)


@contextmanager
def served(server: str) -> Iterator[None]:
    stop, wake = socket.socketpair()
    with stop, wake:
        thread = threading.Thread(
            target=lambda: inside(lambda: serve(stop), namespace=server), daemon=True
        )
        thread.start()
        time.sleep(0.5)
        yield
        wake.send(b"x")
        thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args()
    tag = f"cm-test-{os.getpid()}"
    plain, server = f"{tag}-client", f"{tag}-server"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(netns(server))
        behind = {count: f"{tag}-{count}" for count in COUNTS}
        stack.enter_context(clients(server, [plain, *behind.values()]))
        stack.enter_context(served(server))
        paths = {count: sockets(stack, folder, tag, count) for count in COUNTS}
        ways = {}
        for count, (_, cgroup) in paths.items():
            load_rules(behind[count], count)
            here = [vip(n) for n in range(count)], [vip(n, "10.97") for n in range(count)]
            ways[f"socket {count:,}"] = Way(plain, here[0], cgroup=cgroup)
            ways[f"nftables {count:,}"] = Way(behind[count], here[1])
        for kind, base in (("socket", "10.96"), ("nftables", "10.97")):
            last = ways[f"{kind} {COUNTS[-1]:,}"]
            ways[f"{kind} {ONE}"] = replace(last, targets=[vip(COUNTS[-1] // 2, base)])
        ways["direct"] = Way(plain, [SERVER], PORT)
        stack.callback(enter, OUTSIDE)
        entering = {name: partial(enter, way.cgroup) for name, way in ways.items()}
        show(
            in_turns(
                {name: way.work for name, way in ways.items()}, options.rounds, before=entering
            )
        )
        for count, (datapath, cgroup) in paths.items():
            took = program_time(datapath, plain, cgroup, count)
            print(f"{count} services: connect program {took:.0f} ns a run")


if __name__ == "__main__":
    main()
