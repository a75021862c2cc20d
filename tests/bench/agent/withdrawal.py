"""How long a cluster whose data plane dies keeps getting connections.

`python tests/bench/agent/withdrawal.py [--rounds 5]`: a lab of two clusters with a global service
that both have. All packets of the overlay to and from the nodes of one are dropped; its etcd,
apiserver and agents live on and say that all is well. Times are from the cut to the moment when an
agent of the other calls it silent, and uses none of its backends any more; and from the end of the
cut until it does again. Then the agents of the cluster's nodes are stopped (SIGSTOP), which must
withdraw nothing: the kernel goes on forwarding.
"""

import argparse
import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.e2e.world import World

CUT = """table inet cut {
  chain in { type filter hook prerouting priority -400; udp dport 8472 drop; }
  chain out { type filter hook output priority -400; udp dport 8472 drop; }
}"""
NODES = ("node-1", "node-2")


class Unix(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


def asked(world: World, path: str) -> Any:
    """Of the agent of the first node of the first cluster."""
    connection = Unix(world.paths.agent_socket("cluster-a", "node-1"))
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def reach(world: World) -> str:
    return str(asked(world, "/v1/probes?cluster=cluster-b")[0]["reach"])


def used(world: World) -> bool:
    """Whether a backend of the other cluster is in use."""
    rows = asked(world, "/v1/services?name=rebel-base")
    return any(it["used"] for row in rows for it in row["backends"] if it["cluster"] == "cluster-b")


def until(holds: Callable[[], bool], most: float = 60.0) -> float:
    """Seconds until it holds."""
    began = time.perf_counter()
    while not holds():
        if time.perf_counter() - began > most:
            raise SystemExit(f"it did not happen within {most:g} s")
        time.sleep(0.02)
    return time.perf_counter() - began


@contextmanager
def cut_off(world: World) -> Iterator[None]:
    for node in NODES:
        subprocess.run(
            world.on_node("cluster-b", node, "nft", "-f", "-"), input=CUT, text=True, check=True
        )
    try:
        yield
    finally:
        for node in NODES:
            command = ("nft", "delete", "table", "inet", "cut")
            subprocess.run(world.on_node("cluster-b", node, *command), check=True)


def one_round(world: World) -> tuple[float, float, float]:
    """Until silent, until no backend is used, until it is used again."""
    with cut_off(world):
        began = time.perf_counter()
        until(lambda: reach(world) == "silent")
        silent = time.perf_counter() - began
        until(lambda: not used(world))
        withdrawn = time.perf_counter() - began
        client, service = (
            world.pod("cluster-a", "client"),
            world.service_ip("cluster-a", "rebel-base"),
        )
        answers = world.clusters(client, service, count=60)
        assert set(answers) == {"cluster-a"}, answers
    return silent, withdrawn, until(lambda: used(world))


def stopped(world: World) -> str:
    """What the agent thinks after every process of the cluster's nodes stood still for 8 s."""
    world.lab("kill", "--signal", "STOP", *(f"cluster-b/{node}/agent" for node in NODES))
    try:
        time.sleep(8)
        return reach(world)
    finally:
        world.lab("kill", "--signal", "CONT", *(f"cluster-b/{node}/agent" for node in NODES))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--name", default="withdrawal")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    world = World(options.name)
    world.lab("up")
    try:
        world.meshctl("connect", "cluster-a", "cluster-b")
        until(lambda: reach(world) == "answers")
        until(lambda: used(world))
        for _ in range(options.rounds):
            silent, withdrawn, again = one_round(world)
            print(
                f"silent after {silent:.2f} s, backends out of use after {withdrawn:.2f} s,"
                f" in use again {again:.2f} s after the cut ended",
                flush=True,
            )
            time.sleep(2)
        print(f"agents of all its nodes stopped for 8 s: the cluster {stopped(world)}")
    finally:
        world.lab("down")


if __name__ == "__main__":
    main()
