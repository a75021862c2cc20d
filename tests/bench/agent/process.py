"""The agent as it is shipped, between real etcds and the kernel.

`python tests/bench/agent/process.py [--parts cold,events,services,clusters]`.

One node in a network namespace with its cluster's etcd, remote clusters in etcds of their own (in
memory), and the real process. CPU is user plus system of the process. Latency is from just before
the put until the entry is seen in the pinned map, which is looked at every 0.3 ms. A question on
the unix socket every 20 ms tells how long the event loop stands still at most.
"""

import argparse
import asyncio
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[3]))

import msgspec

from agent.settings import PINS
from bpf.kernel_maps import KernelMap, KernelTables
from bpf.layout import IpcacheKey
from clustermesh import keys, local
from clustermesh.keys import Kind, Layout
from clustermesh.lab.generate import fill
from clustermesh.lab.generate.churn import Change, Rates, story
from clustermesh.lab.generate.world import Cluster, Shape, clusters
from clustermesh.local import Frontend, LocalService
from clustermesh.model import Cidr, NodeAddress
from kvstore.client import PutOp, Store
from kvstore.etcd import open_etcd
from tests.support.agent_process import NODE_IP, AgentProcess, Place, own_cluster, place
from tests.support.bpf import enter
from tests.support.etcd import Etcd, running_etcd
from tests.support.remote_world import node as remote_node
from tests.support.spent import Spent, kernel_maps

LARGE = (
    "--quota-backend-bytes=8589934592",
    "--experimental-watch-progress-notify-interval=10m",  # as it is unless tests hurry it
)
LOOK = 0.0003
WORLD = 2
OWN_POD = "10.1.0.9"


class Node:
    """The node, and how its maps are looked at."""

    def __init__(self, where: Place, own: Etcd) -> None:
        self.where = where
        self.own = own
        self.maps = where.bpf / PINS / "maps"
        self._ipcache: KernelMap | None = None

    @contextmanager
    def agent(self, *more: str) -> Iterator[AgentProcess]:
        """The process, started this moment."""
        process = AgentProcess(
            self.where,
            self.where.arguments(
                self.own, "--map-entries", "524288", "--audit-interval", "0", *more
            ),
        )
        try:
            yield process
        finally:
            process.stop()
            if self._ipcache is not None:
                self._ipcache.close()
                self._ipcache = None

    def identity(self, address: str) -> int:
        """What the map in the kernel says of an address, 0 when nothing."""
        if self._ipcache is None:
            with suppress(OSError):
                self._ipcache = KernelMap.pinned(self.maps / "cilium_ipcache", read_only=True)
            if self._ipcache is None:
                return 0
        value = self._ipcache.get(IpcacheKey.of(ip_network(address)).pack())
        return int.from_bytes(value[:4], "little") if value else 0

    async def until(self, holds: Callable[[], bool], every: float = 0.002) -> float:
        """The moment when it is seen to hold."""
        while not holds():  # noqa: ASYNC110  # a map has no events
            await asyncio.sleep(every)
        return time.perf_counter()

    def ready(self) -> bool:
        """As the process says."""
        try:
            return bool(self.where.ask("/readyz") == "Ready")
        except OSError:
            return False


class Stall:
    """How long an answer on the unix socket takes at most, after the first: no turn of the loop is
    longer."""

    def __init__(self, where: Place) -> None:
        self._where = where
        self._began = time.perf_counter()
        self.first = 0.0
        """Seconds until somebody answered."""
        self.longest = 0.0

    async def run(self) -> None:
        while True:
            began = time.perf_counter()
            with suppress(OSError):
                reader, writer = await asyncio.open_unix_connection(str(self._where.socket))
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                await reader.read()
                writer.close()
                now = time.perf_counter()
                if self.first:
                    self.longest = max(self.longest, now - began)
                else:
                    self.first = now - self._began
            await asyncio.sleep(0.02)


@asynccontextmanager
async def filled(
    worlds: Iterable[Sequence[Cluster]], layout: Layout
) -> AsyncIterator[list[tuple[Etcd, Store]]]:
    """An etcd for each group of clusters, with everything in it."""
    async with AsyncExitStack() as stack:
        made = []
        for group in worlds:
            etcd = stack.enter_context(running_etcd(options=LARGE))
            config = etcd.config("root", qps=1e5, request_timeout=120.0)
            store = await stack.enter_async_context(open_etcd(config))
            await store.connected(beyond=0)
            await fill.fill(store, group, layout)
            made.append((etcd, store))
        yield made


def last_address(cluster: Cluster) -> tuple[str, int]:
    """The address that is written last, and its identity."""
    entry = cluster.address(cluster.count(Kind.IPS) - 1, 0)
    return entry.ip, entry.id


# --- cold start --------------------------------------------------------------------------------


async def empty_start(node: Node) -> Spent:
    """The process alone: start to first map entry."""
    began = time.perf_counter()
    with node.agent() as process:
        first = await node.until(lambda: node.identity(OWN_POD) > 0)
        spent = Spent(process.pid)
        await node.until(node.ready)
        print(
            f"own start: first map entry after {first - began:.2f} s wall, {spent.cpu:.2f} s CPU,"
            f" {spent.peak:.0f} MB; ready after {time.perf_counter() - began:.2f} s"
        )
        return Spent(process.pid)


async def cold(node: Node, world: Sequence[Cluster], idle: Spent, process: AgentProcess) -> None:
    """Everything of the remote clusters, from the start of the process."""
    began, stall = time.perf_counter(), Stall(node.where)
    async with asyncio.TaskGroup() as tasks:
        await node.until(lambda: node.identity(OWN_POD) > 0)
        watching = tasks.create_task(stall.run())
        last = began
        for cluster in world:
            address, identity = last_address(cluster)
            last = await node.until(
                lambda a=address, i=identity: node.identity(a) == i  # type: ignore[misc]
            )
        await node.until(node.ready)
        watching.cancel()
    spent, count = Spent(process.pid), sum(it.count(Kind.IPS) for it in world)
    print(
        f"{len(world)} clusters, {count} addresses: last entry after {last - began:.2f} s wall,"
        f" {spent.cpu:.2f} s CPU; above the own start {(spent.cpu - idle.cpu) / count * 1e6:.0f} us"
        f" and {(spent.now - idle.now) / count * 2**20:.0f} B each; peak {spent.peak:.0f} MB;"
        f" first answer after {stall.first:.2f} s, then the longest {stall.longest * 1e3:.0f} ms"
    )


# --- events ------------------------------------------------------------------------------------


class Latency:
    """When each change was written, and when it was seen in the map."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._sent: dict[str, tuple[int, float]] = {}
        self.delays: list[float] = []

    def sent(self, batch: Sequence[Change], at: float) -> None:
        for change in batch:
            wanted = WORLD  # what its node's range says
            if change.value is not None:
                wanted = msgspec.json.decode(change.value)["ID"]
            self._sent[change.name] = wanted, at

    async def watch(self) -> None:
        while True:
            for address, (wanted, at) in list(self._sent.items()):
                if self._node.identity(address) == wanted:
                    self.delays.append(time.perf_counter() - at)
                    if self._sent[address] == (wanted, at):
                        del self._sent[address]
            await asyncio.sleep(LOOK)

    async def done(self) -> None:
        """Everything has been seen, or will not be."""
        deadline = time.perf_counter() + 10
        while self._sent and time.perf_counter() < deadline:  # noqa: ASYNC110  # no event
            await asyncio.sleep(0.01)

    def row(self) -> str:
        cuts = statistics.quantiles(self.delays, n=100)
        numbers = [cuts[49] * 1e3, cuts[98] * 1e3, max(self.delays) * 1e3]
        return " | ".join(f"{it:.2f}" for it in numbers) + f" | {len(self._sent)}"


async def events(
    node: Node,
    process: AgentProcess,
    stores: dict[str, Store],
    changes: Iterator[Change],
    *,
    what: str,
    rate: float,
    seconds: float = 10,
    layout: Layout = Layout.STATE,
) -> None:
    """One row of the table: addresses that change, from the put to the map."""
    latency = Latency(node)
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(latency.watch())
        before = Spent(process.pid)
        timed = (msgspec.structs.replace(change, at=n / rate) for n, change in enumerate(changes))
        count = await fill.churn(stores, timed, layout, seconds=seconds, sent=latency.sent)
        await latency.done()
        cpu = Spent(process.pid).cpu - before.cpu
        watching.cancel()
    print(f"| {what} | {latency.row()} | {cpu / count * 1e3:.3f} |", flush=True)


ONLY_ADDRESSES = Rates(nodes=0, identities=0, services=0, endpoints=200)


async def cold_and_events(node: Node, parts: set[str], asked: argparse.Namespace) -> None:
    idle = await empty_start(node)
    world = clusters(
        Shape(clusters=4, nodes=250, identities=2000, endpoints=asked.addresses // 4, services=500)
    )
    joining = Cluster(
        Shape(nodes=1000, identities=8000, endpoints=asked.addresses, services=500), 8
    )
    async with filled([*[[it] for it in world], [joining]], Layout.STATE) as made:
        for cluster, (etcd, _) in zip(world, made[:-1], strict=True):
            node.where.configure(cluster.name, etcd)
        with node.agent() as process:
            await cold(node, world, idle, process)
            if "events" not in parts:
                return
            stores = {it.name: store for it, (_, store) in zip(world, made[:-1], strict=True)}
            changes = story(world, ONLY_ADDRESSES, seed=1)
            print("| address put to map | p50 ms | p99 ms | max ms | unseen | CPU ms/event |")
            for rate in (200, 2000):
                what = f"{rate}/s"
                await events(node, process, stores, changes, what=what, rate=rate)
            node.where.configure(joining.name, made[-1][0])
            await events(
                node, process, stores, changes,
                what=f"200/s while {asked.addresses} addresses join", rate=200,
            )  # fmt: skip
            address, identity = last_address(joining)
            await node.until(lambda: node.identity(address) == identity)
            for cluster in (*world, joining):
                (node.where.remotes / cluster.name).unlink()


# --- services ----------------------------------------------------------------------------------


def consumers(cluster: Cluster) -> Iterator[PutOp]:
    """A global service here for each of the remote cluster's."""
    for at in range(cluster.count(Kind.SERVICES)):
        remote = cluster.service(at, 0)
        service = LocalService(
            namespace=remote.namespace,
            name=remote.name,
            frontends=(Frontend(address=f"10.96.{at >> 8}.{at & 255}", port=80, name="http"),),
            is_global=True,
            shared=True,
        )
        yield PutOp(local.key_of(service), local.encode(service))


async def services(node: Node, store: Store, count: int) -> None:
    """Many services of ten remote backends each: cold start, kernel memory, one change."""
    shape = Shape(clusters=1, nodes=500, endpoints=100_000, identities=2000, services=count)
    (cluster,) = clusters(shape)
    ops = list(consumers(cluster))
    for at in range(0, len(ops), 128):
        await store.commit(ops[at : at + 128])
    before = kernel_maps()
    async with filled([[cluster]], Layout.STATE) as ((etcd, _),):
        node.where.configure(cluster.name, etcd)
        with node.agent() as process:
            began, stall = time.perf_counter(), Stall(node.where)
            async with asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(stall.run())
                await node.until(lambda: tables(node) == count, every=0.25)
                took = time.perf_counter() - began
                watching.cancel()
            spent = Spent(process.pid)
            new = {it: maps for it, maps in kernel_maps().items() if it not in before}
            print(
                f"{count} services x {shape.backends} backends and {shape.endpoints} addresses:"
                f" all tables after {took:.1f} s wall, {spent.cpu:.1f} s CPU;"
                f" peak {spent.peak:.0f} MB; first answer after {stall.first:.2f} s,"
                f" then the longest {stall.longest * 1e3:.0f} ms"
            )
            print("kernel memory, MB:", largest(new))
        (node.where.remotes / cluster.name).unlink()


def largest(new: dict[int, tuple[str, int]]) -> str:
    """By name, the largest first."""
    sums: dict[str, int] = {}
    for name, size in new.values():
        sums[name] = sums.get(name, 0) + size
    rows = sorted(sums.items(), key=lambda row: -row[1])[:8]
    total = sum(sums.values())
    return f"{total / 2**20:.0f} in all; " + ", ".join(f"{n} {s / 2**20:.1f}" for n, s in rows)


def tables(node: Node) -> int:
    """How many frontends have a selection table."""
    try:
        held = KernelTables.pinned(node.maps / "cilium_lb4_maglev", read_only=True)
    except OSError:
        return 0
    try:
        return sum(1 for _ in held.keys())  # noqa: SIM118  # no dict
    finally:
        held.close()


# --- many clusters -----------------------------------------------------------------------------


IDLE: Final = 60.0


async def beating(store: Store) -> None:
    """The heartbeat of the cache's etcd, which comes on the connection of every cluster."""
    while True:
        await store.commit([PutOp(keys.HEARTBEAT, str(time.time()).encode())])
        await asyncio.sleep(30)


async def many(node: Node, count: int) -> None:
    """Idle, and one change, with so many clusters in one cache."""
    world = clusters(Shape(clusters=count, nodes=2, identities=10, endpoints=40, services=2))
    async with filled([world], Layout.CACHE) as ((etcd, store),):
        for cluster in world:
            node.where.configure(cluster.name, etcd)
        with node.agent() as process:
            heart = asyncio.create_task(beating(store))
            await node.until(node.ready)
            await asyncio.sleep(10)
            before = Spent(process.pid)
            await asyncio.sleep(IDLE)
            after = Spent(process.pid)
            print(
                f"{count} clusters: idle {(after.cpu - before.cpu) / IDLE * 100:.2f} % of a core,"
                f" {after.now:.0f} MB"
            )
            stores = {it.name: store for it in world}
            changes = story(world, ONLY_ADDRESSES, seed=1)
            what = f"{count} clusters, 200/s"
            await events(node, process, stores, changes, what=what, rate=200, layout=Layout.CACHE)
            heart.cancel()
        for cluster in world:
            (node.where.remotes / cluster.name).unlink()


def own_node() -> PutOp:
    """Pods of generated clusters have the whole of 10.0.0.0/8: ours are elsewhere."""
    node = msgspec.structs.replace(
        remote_node("home", 1, "node-a"),
        addresses=(NodeAddress("InternalIP", NODE_IP),),
        ipv4_alloc_cidr=Cidr.of("192.168.77.0/24"),
    )
    return PutOp(keys.key_of("home", node), keys.encode(node))


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default="cold,events,services,clusters")
    parser.add_argument("--addresses", type=int, default=100_000)
    parser.add_argument("--services", type=int, default=10_000)
    parser.add_argument("--clusters", default="1,16,250")
    asked = parser.parse_args()
    parts = set(asked.parts.split(","))
    with tempfile.TemporaryDirectory(prefix="cm-bench-") as name, place(Path(name)) as where:
        enter(where.name)  # the etcds and whoever writes to them are on the node
        with running_etcd(options=LARGE) as own:
            async with open_etcd(own.config("root", qps=1e5)) as store:
                await store.connected(beyond=0)
                await store.commit(own_cluster({}))
                await store.commit([own_node()])
                node = Node(where, own)
                if parts & {"cold", "events"}:
                    await cold_and_events(node, parts, asked)
                if "services" in parts:
                    await services(node, store, asked.services)
                if "clusters" in parts:
                    for count in map(int, asked.clusters.split(",")):
                        await many(node, count)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a file
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # and remove the node
    asyncio.run(main())
