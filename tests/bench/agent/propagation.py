"""What propagation probes cost an agent: `python tests/bench/agent/propagation.py`.

Real etcds, connections of their own as an agent has them, a real map. Reference: the same process
with the same watches while nobody puts a probe. Times are CPU of this process.
"""

import argparse
import asyncio
import multiprocessing
import sys
import tempfile
import time
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from agent.propagation import Propagations
from bpf.propagation import open_map
from clustermesh import propagation
from clustermesh.keys import Layout
from clustermesh.model import Capabilities, ClusterConfig
from clustermesh.propagation import Probe
from kvstore.client import PutOp
from kvstore.etcd import open_etcd
from tests.support.bpf import private_bpffs
from tests.support.etcd import running_etcd

INTERVAL = 30.0
"""Seconds between probes of a cluster, as shipped."""


def cluster(number: int) -> str:
    return f"cluster-{number}"


def put(url: str, clusters: int, rounds: int, every: float) -> None:
    """Another process: a probe of each cluster, one after the other."""
    from kvstore.config import EtcdConfig

    async def run() -> None:
        async with open_etcd(EtcdConfig.load(Path(url))) as store:
            for number in range(1, rounds + 1):
                for which in range(clusters):
                    value = propagation.encode(Probe("bench", number, time.time_ns()))
                    place = propagation.key(Layout.STATE, cluster(which))
                    await store.commit([PutOp(place, value)])
                    await asyncio.sleep(every / clusters)

    asyncio.run(run())


async def measure(clusters: int, rounds: int, every: float) -> None:
    with ExitStack() as stack:
        etcd = stack.enter_context(running_etcd())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        held = open_map(stack.enter_context(private_bpffs(folder / "bpf")))
        file = folder / "etcd.yaml"
        file.write_text(f"endpoints: [{etcd.url}]\nqps: 10000\n")
        woken = asyncio.Event()
        found = Propagations(held, wake=woken.set)
        async with AsyncExitStack() as stores:
            tasks = [asyncio.create_task(land(found, woken))]
            for which in range(clusters):
                store = await stores.enter_async_context(open_etcd(etcd.config()))
                config = ClusterConfig(id=which + 1, capabilities=Capabilities())
                (listen,) = found.listen(cluster(which), config)
                tasks.append(asyncio.create_task(listen(store, None)))
            await asyncio.sleep(5)
            idle = await spent(asyncio.sleep(rounds * every))
            writer = multiprocessing.get_context("spawn").Process(
                target=put, args=(str(file), clusters, rounds, every)
            )
            writer.start()
            busy = await spent(asyncio.to_thread(writer.join))
            for task in tasks:
                task.cancel()
            samples = told(found, clusters)
        each = (busy - idle) / (clusters * rounds)
        print(f"{clusters} clusters, {clusters * rounds} probes in {rounds * every:.0f} s or more")
        print(f"reference, no probes: {idle:.2f} s CPU; with probes {busy:.2f} s CPU")
        print(f"a probe: {each * 1e6:.0f} us CPU; {samples} samples taken")
        share = each * clusters / INTERVAL
        print(f"one in {INTERVAL:.0f} s from each of {clusters} clusters: {share:.3%} of a core")


async def land(found: Propagations, woken: asyncio.Event) -> None:
    """As the agent's writer does when it is woken."""
    while True:
        await woken.wait()
        woken.clear()
        found.land()


def told(found: Propagations, clusters: int) -> int:
    figures = [found.told(cluster(which), None) for which in range(clusters)]
    slowest = max((it.p99 or 0.0 for it in figures if it), default=0.0)
    middle = sorted(it.p50 for it in figures if it and it.p50 is not None)
    print(f"from put to map: p50 {middle[len(middle) // 2] * 1e3:.1f} ms, worst p99"
          f" {slowest * 1e3:.1f} ms")  # fmt: skip
    return sum(it.samples for it in figures if it)


async def spent(what: object) -> float:
    before = time.process_time()
    await what  # type: ignore[misc]
    return time.process_time() - before


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clusters", type=int, default=254)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--every", type=float, default=2.0)
    given = parser.parse_args()
    asyncio.run(measure(given.clusters, given.rounds, given.every))
