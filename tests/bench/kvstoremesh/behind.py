"""An agent behind a cache: what remote clusters cost it when its own etcd holds their copies.

`python tests/bench/kvstoremesh/behind.py --clusters 1,16,64 --rate 325`, as root: the agent is the
real process with the kernel's own maps, in a network namespace of its own. Nobody answers there as
a remote node, so that its prober finds them all silent; the column "idle" contains that. The cache
is filled by `meshctl lab generate` as a kvstoremesh would fill it. CPU is user plus system of the
agent; the row without clusters is what it costs by itself.
"""

import argparse
import sys
import tempfile
import time
from contextlib import AbstractContextManager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from clustermesh.lab.generate.world import Shape, clusters
from tests.bench.kvstoremesh.scale import LARGE, Spent
from tests.support.agent_process import AgentProcess, Place, agent, own_cluster, place
from tests.support.etcd import Etcd, running_etcd

FIRST_ID = 2


def generate(where: Place, own: Etcd, shape: Shape, *more: str) -> None:
    """Fill the etcd, and change it if told to, from inside the namespace."""
    client = where.folder / "generate.yaml"
    client.write_text(f"endpoints:\n- {own.url}\n")
    counts = ("clusters", "nodes", "identities", "endpoints", "services")
    where.run(
        *(sys.executable, "-P", "-m", "clustermesh.meshctl.main", "lab", "generate", str(client)),
        *("--layout", "cache", "--first-id", str(FIRST_ID)),
        *(f"--{name}={getattr(shape, name)}" for name in counts),
        *more,
    )


def etcd_in(where: Place) -> AbstractContextManager[Etcd]:
    """As etcd runs by itself: in tests it tells every watch of progress five times a second."""
    launcher = ["nsenter", f"--net=/run/netns/{where.name}"]
    return running_etcd(options=LARGE, launcher=launcher)


def settled(process: AgentProcess) -> tuple[Spent, float]:
    """When it does no more than a second ago, and how much CPU that is a second."""
    before, last = Spent(process.pid), float("inf")
    time.sleep(8.0)  # the kernel's routes are written in rounds
    for _ in range(150):
        time.sleep(1.0)
        after = Spent(process.pid)
        idle = after.cpu - before.cpu
        if idle < 0.5 and abs(idle - last) < 0.02:
            break
        before, last = after, idle
    return after, idle


def measured(folder: Path, shape: Shape | None, rate: float, seconds: float) -> None:
    folder.mkdir()
    with place(folder) as where, etcd_in(where) as own:
        where.write(own, own_cluster({}))
        names = []
        if shape is not None:
            generate(where, own, shape)
            names = [cluster.name for cluster in clusters(shape)]
        for name in names:
            where.configure(name, own)
        began = time.perf_counter()
        arguments = where.arguments(own, "--map-entries", "524288")
        with agent(where, arguments, patience=120) as process:
            process.until(lambda: whole(where, len(names)), 120)
            wall = time.perf_counter() - began
            ready, idle = settled(process)
            row = f"| {len(names)} | {wall:.1f} | {ready.cpu:.2f} | {ready.now:.0f} | {idle:.1%} "
            if shape is not None:
                started, clock = Spent(process.pid), time.perf_counter()
                more = (f"--rate={rate}", f"--seconds={seconds}", "--filled")
                generate(where, own, shape, *more)
                time.sleep(1.0)
                spent = Spent(process.pid).cpu - started.cpu
                spent -= idle * (time.perf_counter() - clock)
                row += f"| {spent / (rate * seconds) * 1e3:.3f} "
            print(row + "|", flush=True)


def whole(where: Place, count: int) -> bool:
    """Whether every remote cluster has been read in full."""
    remotes = where.ask("/v1/status")["remotes"]
    return len(remotes) == count and all(remote["ready"] for remote in remotes)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--clusters", default="1,16,64")
    for name, value in (("nodes", 100), ("identities", 100), ("endpoints", 1000), ("services", 20)):
        arguments.add_argument(f"--{name}", type=int, default=value)
    arguments.add_argument("--rate", type=float, default=325.0)
    arguments.add_argument("--seconds", type=float, default=10.0)
    asked = arguments.parse_args()
    print("| clusters | ready after s | CPU s | RSS MB | idle, of a core | CPU ms/event |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="cm-bench-") as name:
        measured(Path(name, "none"), None, asked.rate, asked.seconds)
        for count in map(int, asked.clusters.split(",")):
            shape = Shape(
                clusters=count,
                nodes=asked.nodes,
                identities=asked.identities,
                endpoints=asked.endpoints,
                services=asked.services,
                first_id=FIRST_ID,
            )
            measured(Path(name, str(count)), shape, asked.rate, asked.seconds)


if __name__ == "__main__":
    main()
