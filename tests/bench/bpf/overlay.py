"""Pod to pod through our overlay against the kernel's plain VXLAN.

`python tests/bench/bpf/overlay.py`. Two devices on the same wire: ours with its programs, and an
ordinary one with a fixed remote and number. Rounds alternate, so that a busy machine slows both;
the ratios of the best rounds are what counts.
"""

import argparse
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.support.bpf_nodes import Node, two_nodes

PLAIN = {1: ("10.11.0.1", "fd00:11::1"), 2: ("10.11.0.2", "fd00:11::2")}


def add_plain(node: Node, other: Node) -> None:
    """The kernel's VXLAN with everything static: no programs, no learning, no neighbours."""
    node.ip(
        *("link", "add", "plain", "mtu", "1450", "type", "vxlan", "id", "42"),
        *("remote", other.underlay, "local", node.underlay, "dstport", "4789", "nolearning"),
    )
    for address in PLAIN[node.cluster]:
        node.ip("address", "add", address, "dev", "lo")
    node.ip("link", "set", "plain", "address", f"02:00:00:00:00:0{node.cluster}", "up")
    for mine, theirs in zip(PLAIN[node.cluster], PLAIN[other.cluster], strict=True):
        node.ip("route", "add", theirs, "dev", "plain", "src", mine)
        neighbour = ("lladdr", f"02:00:00:00:00:0{other.cluster}", "dev", "plain")
        node.ip("neigh", "replace", theirs, *neighbour, "nud", "permanent")


def throughput(one: Node, target: str, source: str, seconds: int) -> float:
    """Gbit/s of one TCP stream."""
    command = ["iperf3", "-J", "-t", str(seconds), "-c", target, "-B", source]
    while True:
        shown = one.run(lambda: subprocess.run(command, capture_output=True))
        report = json.loads(shown.stdout)
        if "error" not in report:
            return float(report["end"]["sum_received"]["bits_per_second"]) / 1e9
        time.sleep(0.5)  # the server is still busy with the last one


def latency(one: Node, two: Node, target: str, source: str) -> float:
    """Microseconds of one request and answer over UDP, median of many."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    server = two.run(lambda: socket.socket(family, socket.SOCK_DGRAM))
    client = one.run(lambda: socket.socket(family, socket.SOCK_DGRAM))
    with server, client:
        server.bind((target, 9999))
        client.bind((source, 0))
        client.connect((target, 9999))
        times = []
        for _ in range(3000):
            start = time.perf_counter_ns()
            client.send(b"x")
            _, peer = server.recvfrom(10)
            server.sendto(b"y", peer)
            client.recv(10)
            times.append((time.perf_counter_ns() - start) / 1000)
        return statistics.median(times)


def compare(what: str, ours: Callable[[], float], plain: Callable[[], float], rounds: int) -> None:
    mine, theirs = [], []
    for _ in range(rounds):
        mine.append(ours())
        theirs.append(plain())
    best = max if "Gbit" in what else min
    a, b = best(mine), best(theirs)
    print(f"{what:28} ours {a:8.2f}   plain vxlan {b:8.2f}   ratio {a / b:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, two_nodes(Path(folder)) as (one, two):
        add_plain(one, two)
        add_plain(two, one)
        server = two.run(lambda: subprocess.Popen(["iperf3", "-s"], stdout=subprocess.DEVNULL))
        time.sleep(0.5)
        try:
            for n, family in ((0, "v4"), (1, "v6")):
                ours, plain = (one.pod4, one.pod6)[n], PLAIN[1][n]
                to_ours, to_plain = (two.pod4, two.pod6)[n], PLAIN[2][n]
                compare(
                    f"TCP {family}, Gbit/s",
                    lambda a=to_ours, b=ours: throughput(one, a, b, options.seconds),
                    lambda a=to_plain, b=plain: throughput(one, a, b, options.seconds),
                    options.rounds,
                )
                compare(
                    f"UDP {family} round trip, us",
                    lambda a=to_ours, b=ours: latency(one, two, a, b),
                    lambda a=to_plain, b=plain: latency(one, two, a, b),
                    options.rounds,
                )
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
