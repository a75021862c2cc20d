"""What the data plane costs: an address, a service, a change. `python tests/bench/agent/core.py`.

Facts are ready-made, so this is the agent's own share: from ``Sink.apply`` to the kernel's map.
Times are CPU of this process unless called latency.
"""

import argparse
import asyncio
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from bpf.datapath import Maps, load, maps_in_memory
from bpf.specs import DatapathSettings
from clustermesh.keys import Kind
from clustermesh.local import Frontend, LocalService, NamedPort
from clustermesh.model import ClusterService, IPEntry, Port
from tests.support.bpf import private_bpffs
from tests.support.mesh import OWN, REMOTE_KINDS, Agent, backend, node, service

SLICE = 250
NODES = 100


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


class Watch:
    """Most CPU that was spent between two turns of the event loop: a busy machine adds nothing."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def run(self) -> None:
        before = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            self.longest = max(self.longest, now - before)
            before = now


@contextmanager
def measured(what: str, count: int) -> Iterator[Watch]:
    """CPU, memory and wall time of a block, per item."""
    gc.collect()
    cpu, wall, memory = time.process_time(), time.perf_counter(), resident()
    watch = Watch()
    yield watch
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    grown = resident() - memory
    print(
        f"{what:<52}{count:>9,}{cpu / count * 1e6:>9.1f} us{grown / count:>9.0f} B"
        f"{wall:>8.2f} s{watch.longest * 1e3:>8.1f} ms"
    )


def address(number: int) -> str:
    return f"10.{number >> 16 & 0xFF}.{number >> 8 & 0xFF}.{number & 0xFF}"


async def idle(agent: Agent) -> None:
    while not agent.dataplane.idle:  # noqa: ASYNC110 - as soon as can be seen
        await asyncio.sleep(0)


async def in_slices(agent: Agent, cluster: str, kind: object, facts: list[object]) -> None:
    for start in range(0, len(facts), SLICE):
        agent.dataplane.apply(cluster, kind, facts[start : start + SLICE])
        await asyncio.sleep(0)


async def addresses(agent: Agent, count: int) -> None:
    """Many remote addresses, then the same list again, then single changes."""
    agent.expect("cluster-b")
    for n in range(NODES):
        agent.nodes(node("cluster-b", f"b{n}", f"192.168.1.{n}", f"10.{n}.0.0/16"))
    agent.synced("cluster-b", kinds=[Kind.NODES])
    await idle(agent)

    def facts() -> Iterator[object]:
        for n in range(count):
            ip = address(n)
            yield ip, IPEntry(ip=ip, host_ip=f"192.168.1.{n % NODES}", id=2 << 16 | n % 8000)

    for what in ("address: fact to kernel", "address: told again, unchanged"):
        made = 0
        with measured(what, count) as watch:
            stream, batch = facts(), []
            watcher = asyncio.ensure_future(watch.run())
            for fact in stream:
                batch.append(fact)
                if len(batch) == SLICE:
                    agent.dataplane.apply("cluster-b", Kind.IPS, batch)
                    made += len(batch)
                    batch = []
                    await asyncio.sleep(0)
            await idle(agent)
            watcher.cancel()
        with measured("  of that, making the facts of this test", count):
            for _ in facts():
                pass
    await latency(
        agent,
        "single address",
        lambda n: agent.pods(
            "cluster-b", IPEntry(ip=f"172.16.0.{n % 250}", host_ip="192.168.1.1", id=(2 << 16) + n)
        ),
    )


async def latency(agent: Agent, what: str, change: Callable[[int], object]) -> None:
    """From the call to the end of its system call."""
    samples = []
    cpu = time.process_time()
    for n in range(400):
        start = time.perf_counter()
        change(n)
        while not agent.dataplane.written:  # noqa: ASYNC110 - as soon as can be seen
            await asyncio.sleep(0)
        samples.append(time.perf_counter() - start)
        await idle(agent)
    cpu = time.process_time() - cpu
    cuts = statistics.quantiles(samples, n=100)
    print(
        f"{what}: latency p50 {cuts[49] * 1e3:.2f} ms, p99 {cuts[98] * 1e3:.2f} ms,"
        f" max {max(samples) * 1e3:.2f} ms, {cpu / 400 * 1e3:.2f} ms CPU each"
    )


def named(n: int, backends: int, ports: int = 1) -> tuple[LocalService, ClusterService]:
    """A service with half of its backends on either side."""
    names = [f"p{m}" for m in range(ports)]
    vip = f"10.96.{n // 250}.{n % 250}"
    local = tuple(
        backend(address((1 << 16) + n * backends + m), node="a2") for m in range(backends // 2)
    )
    own = tuple(
        type(it)(
            address=it.address,
            node="a2",
            ports=tuple(NamedPort(p, "TCP", 8080 + i) for i, p in enumerate(names)),
        )
        for it in local
    )
    front = tuple(Frontend(vip, 80 + i, p, "TCP") for i, p in enumerate(names))
    remote = {
        address((99 << 16) + n * backends + m): {
            p: Port("TCP", 8080 + i) for i, p in enumerate(names)
        }
        for m in range(backends - backends // 2)
    }
    name = f"web{n}"
    return service(*own, name=name, frontends=front), ClusterService(
        cluster="cluster-b", namespace="shop", name=name, backends=remote, shared=True, cluster_id=2
    )


async def services(agent: Agent, count: int) -> None:
    """Many services with ten backends each, then changes of one with 25 backends and two ports."""
    agent.expect("cluster-b")
    facts = [named(n, 10) for n in range(count)]
    with measured("service of 10 backends: facts to kernel", count) as watch:
        watcher = asyncio.ensure_future(watch.run())
        for start in range(0, count, 50):
            some = facts[start : start + 50]
            agent.local(*(local for local, _ in some))
            agent.remote(*(remote for _, remote in some))
            await asyncio.sleep(0)
        agent.synced(OWN, "cluster-b")
        await idle(agent)
        watcher.cancel()
    tables = count * 1021 * 4
    print(f"  tables of {count:,} frontends: {tables / 1e6:.1f} MB of kernel memory")
    one, other = named(60_000, 25, ports=2)
    agent.local(one).remote(other)
    await idle(agent)
    addresses = list(other.backends)
    ports = other.backends[addresses[0]]

    def change(n: int) -> None:
        backends = dict.fromkeys(addresses[: -1 if n % 2 else None], ports)
        agent.remote(
            ClusterService(
                cluster="cluster-b",
                namespace="shop",
                name=other.name,
                backends=backends,
                shared=True,
                cluster_id=2,
            )
        )

    await latency(agent, "service of 25 backends x 2 ports", change)


async def scale(clusters: int, addresses_each: int = 200) -> None:
    """What one event costs in a mesh of so many clusters: in memory, to leave the kernel out."""
    agent = Agent(maps_in_memory(DatapathSettings()), table_size=1021)
    names = [f"c{n}" for n in range(2, clusters + 2)]
    agent.dataplane.expect(frozenset(names))
    for n, name in enumerate(names, 2):
        agent.dataplane.identify(name, n)
        facts = [
            (ip, IPEntry(ip=ip, host_ip=f"192.168.1.{n % 250}", id=(n << 16) + 1))
            for ip in (f"10.{n % 250}.{n // 250}.{m}" for m in range(addresses_each))
        ]
        agent.dataplane.apply(name, Kind.IPS, facts)
        for kind in REMOTE_KINDS:
            agent.dataplane.synced(name, kind)
    agent.synced(OWN).settle()
    one, _ = named(0, 10)
    agent.local(one).settle()
    count = 2000
    start = time.process_time()
    for n in range(count):
        ip = f"172.16.{n // 250}.{n % 250}"
        fact = IPEntry(ip=ip, host_ip="192.168.1.1", id=(2 << 16) + n)
        agent.dataplane.apply("c2", Kind.IPS, [(ip, fact)])
        agent.settle()
    address_cost = (time.process_time() - start) / count
    start = time.process_time()
    for n in range(count // 10):
        backends = {f"10.2.9.{m}": {"p0": Port("TCP", 8080)} for m in range(1, 6 + n % 2)}
        offer = ClusterService(
            cluster="c2",
            namespace="shop",
            name="web0",
            backends=backends,
            shared=True,
            cluster_id=2,
        )
        agent.dataplane.apply("c2", Kind.SERVICES, [("shop/web0", offer)])
        agent.settle()
    service_cost = (time.process_time() - start) / (count // 10)
    print(
        f"{clusters:>4} clusters: {address_cost * 1e6:7.1f} us an address, "
        f"{service_cost * 1e6:7.1f} us a service of 10 backends"
    )


async def alone(count: int = 5000) -> None:
    """One address at a time, the loop at rest before each: in memory, all that follows included."""
    agent = Agent(maps_in_memory(DatapathSettings()), table_size=1021)
    agent.expect("cluster-b").synced(OWN, "cluster-b")
    written = asyncio.Event()
    agent.dataplane.on_written = written.set
    async with asyncio.TaskGroup() as tasks:
        writer = tasks.create_task(agent.dataplane.run())
        await written.wait()
        start = time.process_time()
        for n in range(count):
            written.clear()
            agent.pods("cluster-b", IPEntry(ip=f"10.2.{n // 250}.{n % 250}", id=(2 << 16) + n))
            await written.wait()
        cost = (time.process_time() - start) / count
        writer.cancel()
    print(f"one address at a time, told to the running writer: {cost * 1e6:.1f} us each")


async def outage(agent: Agent, count: int) -> None:
    """A full list that lost everything, which is what removing the cluster does, too."""
    agent.dataplane.unconfirmed("cluster-b")
    with measured("address: swept, kernel entry gone", count) as watch:
        watcher = asyncio.ensure_future(watch.run())
        await asyncio.sleep(0)
        agent.dataplane.synced("cluster-b", Kind.IPS)
        await idle(agent)
        watcher.cancel()


async def hold_out(agent: Agent, count: int) -> None:
    """A pod range of another cluster begins to overlap, and ends to."""
    agent.synced(OWN, kinds=[Kind.NODES])
    for what, cidr in (("held out", "10.0.0.0/24"), ("mended", "172.31.0.0/24")):
        await idle(agent)
        ours = node(OWN, "a9", "192.168.0.9", cidr)
        with measured(f"address: its cluster is {what}", count) as watch:
            watcher = asyncio.ensure_future(watch.run())
            await asyncio.sleep(0)
            agent.nodes(ours)
            await idle(agent)
            watcher.cancel()


async def restart(maps: Maps, count: int) -> None:
    with measured("restart: adopting what is in the maps", count):
        Agent(maps, table_size=1021)


async def run(maps: Maps, options: argparse.Namespace) -> None:
    agent = Agent(maps, table_size=1021)
    async with asyncio.TaskGroup() as tasks:
        writer = tasks.create_task(agent.dataplane.run())
        await addresses(agent, options.addresses)
        await hold_out(agent, options.addresses)
        await services(agent, options.services)
        await restart(maps, options.addresses)
        await outage(agent, options.addresses)
        writer.cancel()
    for clusters in (1, 16, 255):
        await scale(clusters)
    await alone()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--addresses", type=int, default=100_000)
    parser.add_argument("--services", type=int, default=1_000)
    options = parser.parse_args()
    room = replace(DatapathSettings(), ipcache=2_000_000, services=262_144, backends=262_144)
    print(f"{'':<52}{'count':>9}{'CPU':>12}{'RSS':>11}{'wall':>10}{'stall':>11}")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        root = stack.enter_context(private_bpffs(folder / "bpf"))
        datapath = stack.enter_context(load(root / "cm", room))
        asyncio.run(run(datapath.maps, options))


if __name__ == "__main__":
    main()
