"""New connections: direct, by our socket programs, and by nftables rules of kube-proxy's shape.

`python tests/bench/bpf/services.py`. Microseconds per connection (handshake and close) from a
client to a server in the next namespace, with 10, 1,000 and 10,000 services present, in turns
(rounds.py); CPU is the client's and the server's. And what one run of the connect program takes, by
the kernel's own clock.
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
from collections.abc import Sequence
from contextlib import ExitStack
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
from tests.bench.bpf.rounds import in_turns, reset_at_end
from tests.support.bpf import child_cgroup, inside, netns, own_cgroup, private_bpffs
from tests.support.bpf_packets import packed

SERVER, CLIENT, PORT = "192.168.78.2", "192.168.78.1", 8080
CONNECTIONS = 200


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


def measure(datapath: Datapath, client: str, cgroup: Path, count: int, turns: int) -> None:
    fill(datapath, count)
    rules = nft_rules(count)

    def load_rules() -> None:
        subprocess.run(["nft", "-f", "-"], input="flush ruleset\n" + rules, text=True, check=True)

    inside(load_rules, namespace=client)
    targets = {
        "socket": [(vip(n % count), 80) for n in range(CONNECTIONS)],
        "nftables": [(vip(n % count, "10.97"), 80) for n in range(CONNECTIONS)],
        "direct": [(SERVER, PORT)] * CONNECTIONS,
    }

    ways = {
        kind: partial(inside, partial(connect_many, them), namespace=client)
        for kind, them in targets.items()
    }
    groups = {kind: cgroup if kind == "socket" else OUTSIDE for kind in targets}
    entering = {kind: partial(enter, group) for kind, group in groups.items()}
    table = in_turns(ways, turns, before=entering)
    table.show(f"{count} services", lambda seconds: seconds / CONNECTIONS * 1e6, "us")
    print(f"{'':36} connect program {program_time(datapath, client, cgroup, count):.0f} ns a run")


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

    targets = [(vip(n * 7 % count), 80) for n in range(CONNECTIONS)]
    enter(cgroup)
    counting = syscalls.count_runs()
    try:
        return min(batch() for _ in range(20))
    finally:
        os.close(counting)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    tag = f"cm-test-{os.getpid()}"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bpffs = stack.enter_context(private_bpffs(folder / "bpf"))
        client = stack.enter_context(netns(f"{tag}-client"))
        server = stack.enter_context(netns(f"{tag}-server"))
        cgroup = stack.enter_context(child_cgroup(tag))
        for line in (
            f"-n {client} link add wire type veth peer name wire netns {server}",
            f"-n {client} address add {CLIENT}/24 dev wire",
            f"-n {server} address add {SERVER}/24 dev wire",
            f"-n {client} link set wire up",
            f"-n {server} link set wire up",
            f"-n {client} route add default via {SERVER}",
        ):
            subprocess.run(["ip", *line.split()], check=True)
        stop, wake = socket.socketpair()
        thread = threading.Thread(
            target=lambda: inside(lambda: serve(stop), namespace=server), daemon=True
        )
        thread.start()
        time.sleep(0.5)
        datapath = stack.enter_context(load(bpffs / "clustermesh", DatapathSettings()))
        datapath.attach_sock_lb(cgroup)
        for count in (10, 1_000, 10_000):
            measure(datapath, client, cgroup, count, options.rounds)
        enter(OUTSIDE)
        datapath.detach_sock_lb()
        wake.send(b"x")
        thread.join()
        stop.close()
        wake.close()


if __name__ == "__main__":
    main()
