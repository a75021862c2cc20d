"""Copying a mesh: cold, then under churn: the real process between real etcds.

`python tests/bench/kvstoremesh/scale.py --clusters 4 --rates 205,1000,5000`. The sources are one
etcd per cluster (`--layout state`) or one for all of them (`--layout cache`). All etcds keep their
data in memory. CPU is user plus system of a process. The references of the same run, for ratios:
for the cold copy a program that only writes the same keys into another etcd, in transactions as
large; for churn a program on bare gRPC that has nothing but a watch and a transaction for each
message (bare.py).
"""

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

import msgspec

from clustermesh import keys
from clustermesh.keys import Kind, Layout
from clustermesh.kvstoremesh import places
from clustermesh.kvstoremesh.leader import KEY as LEADER
from clustermesh.lab.generate import fill
from clustermesh.lab.generate.churn import Change, Rates, story
from clustermesh.lab.generate.world import Cluster, Shape, clusters
from kvstore.client import PutOp, Store
from kvstore.etcd import open_etcd
from kvstore.events import Delete
from tests.support.apiserver import listed
from tests.support.etcd import Etcd, running_etcd
from tests.support.kvstoremesh import Replica
from tests.support.spent import Spent

LARGE = (
    "--quota-backend-bytes=8589934592",
    "--experimental-watch-progress-notify-interval=10m",  # as it is unless tests hurry it
)
AS_SHIPPED = (
    *("--config-recheck", "30s", "--leader-ttl", "15s", "--reconnect-ceiling", "30s"),
    *("--doubt", "30s"),
)


class World:
    """The sources, filled."""

    def __init__(self, shape: Shape, layout: Layout) -> None:
        self.layout = layout
        self.clusters = clusters(shape)
        self.etcds: dict[str, Etcd] = {}
        self.stores: dict[str, Store] = {}
        self.keys = 0

    async def open(self, stack: AsyncExitStack) -> None:
        """Start the etcds and fill them."""
        groups: list[list[Cluster]] = [[one] for one in self.clusters]
        if self.layout is Layout.CACHE:
            groups = [self.clusters]
        for group in groups:
            etcd = stack.enter_context(running_etcd(options=LARGE))
            store = await stack.enter_async_context(
                open_etcd(etcd.config("root", qps=1e5, request_timeout=120.0))
            )
            self.keys += await fill.fill(store, group, self.layout)
            for cluster in group:
                self.etcds[cluster.name], self.stores[cluster.name] = etcd, store

    async def wanted(self) -> dict[str, bytes]:
        """What the cache has to hold of nodes, identities, addresses and services."""
        found: dict[str, bytes] = {}
        for cluster in self.clusters:
            for kind in Kind:
                source = keys.prefix(kind, self.layout, cluster.name)
                target = places.target(cluster.name, kind)
                held = await listed(self.stores[cluster.name], source)
                found |= {target + k.removeprefix(source): v.value for k, v in held.items()}
        return found


async def complete(cache: Store, names: Sequence[str]) -> None:
    """Return when every canary of every cluster is there."""
    left = {
        keys.canary(kind, Layout.CACHE, name)
        for name in names
        for kind in (Kind.NODES, Kind.IDENTITIES, Kind.IPS, Kind.SERVICES)
    }
    prefix = places.SIGNS[1]
    while left:
        async for page in cache.pages(prefix):
            left -= {entry.key for entry in page.entries}
            revision = page.revision
        if not left:
            return
        async with aclosing(cache.changes(prefix, after=revision)) as batches:
            async for batch in batches:
                left -= {event.key for event in batch.events}
                if not left:
                    return


async def reference(pairs: dict[str, bytes]) -> tuple[float, float, float]:
    """Wall, own CPU and etcd's CPU for writing these keys and doing nothing else."""
    with running_etcd(options=LARGE) as etcd:
        async with open_etcd(etcd.config("root", qps=1e5, request_timeout=120.0)) as store:
            await store.connected(beyond=0)
            lease = await store.grant(900)
            ops = [PutOp(key, value, lease) for key, value in pairs.items()]
            before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
            other = Spent(etcd.pid)
            for at in range(0, len(ops), 128):
                await store.commit(ops[at : at + 128])
            wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
            own = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            return wall, own, Spent(etcd.pid).cpu - other.cpu


class Latency:
    """When each change was written at its source, and when it was seen in the cache."""

    def __init__(self) -> None:
        self.delays: list[float] = []
        self._sent: dict[str, tuple[bytes | None, float]] = {}

    def sent(self, batch: Sequence[Change], at: float) -> None:
        for change in batch:
            key = places.target(change.cluster.name, change.kind) + change.name
            self._sent[key] = (change.value, at)

    async def watch(self, cache: Store, revision: int, standing: asyncio.Event) -> None:
        async with aclosing(cache.changes("cilium/cache/", after=revision)) as batches:
            async for batch in batches:
                standing.set()
                now = time.perf_counter()
                for event in batch.events:
                    value = None if isinstance(event, Delete) else event.value
                    wanted = self._sent.get(event.key)
                    if wanted is not None and wanted[0] == value:
                        self.delays.append(now - wanted[1])
                        del self._sent[event.key]

    @property
    def unseen(self) -> int:
        return len(self._sent)


async def churned(
    world: World,
    changes: Iterator[Change],
    cache: Store,
    who: tuple[str, int],
    target: Etcd,
    *,
    rate: float,
    seconds: float,
) -> None:
    """One row of the churn table."""
    latency, standing = Latency(), asyncio.Event()
    revision = 0
    async for page in cache.pages(places.SIGNS[0]):
        revision = page.revision
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(latency.watch(cache, revision, standing))
        await standing.wait()
        before, etcd, began = Spent(who[1]), Spent(target.pid), time.perf_counter()
        timed = (msgspec.structs.replace(change, at=n / rate) for n, change in enumerate(changes))
        count = await fill.churn(
            world.stores, timed, world.layout, seconds=seconds, sent=latency.sent
        )
        took = time.perf_counter() - began
        deadline = time.perf_counter() + 10
        while latency.unseen and time.perf_counter() < deadline:  # noqa: ASYNC110  # no event
            await asyncio.sleep(0.05)
        after, etcd_after = Spent(who[1]), Spent(target.pid)
        watching.cancel()
    cuts = statistics.quantiles(latency.delays, n=100)
    ms = [cuts[49] * 1e3, cuts[98] * 1e3, max(latency.delays) * 1e3]
    print(
        f"| {who[0]} | {rate:g} asked, {count / took:.0f} done "
        f"| {ms[0]:.1f} | {ms[1]:.1f} | {ms[2]:.0f} "
        f"| {(after.cpu - before.cpu) / count * 1e3:.3f} "
        f"| {(etcd_after.cpu - etcd.cpu) / count * 1e3:.3f} | {latency.unseen} |",
        flush=True,
    )


@contextmanager
def bare(world: World, target: Etcd) -> Iterator[int]:
    """The floor, running; its process id."""
    routes = [
        (
            world.etcds[cluster.name].url.removeprefix("http://"),
            keys.prefix(kind, world.layout, cluster.name),
            places.target(cluster.name, kind),
        )
        for cluster in world.clusters
        for kind in (Kind.NODES, Kind.IDENTITIES, Kind.IPS, Kind.SERVICES)
    ]
    command = [sys.executable, str(Path(__file__).with_name("bare.py"))]
    arguments = [target.url.removeprefix("http://"), json.dumps(routes)]
    with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield process.pid
        finally:
            process.kill()


async def empty_start(folder: Path) -> Spent:
    """What the process costs without any cluster, and without being asked anything over HTTP."""
    with running_etcd() as cache, Replica(folder, cache) as replica:
        async with open_etcd(cache.config("root")) as store:
            await store.connected(beyond=0)
            replica.start()
            while await store.get(LEADER) is None:  # noqa: ASYNC110  # another process
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.5)
            return Spent(replica.pid)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("clusters", 4), ("nodes", 250), ("identities", 2_000)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--endpoints", type=int, default=25_000)
    parser.add_argument("--services", type=int, default=500)
    parser.add_argument("--layout", choices=[*Layout], default="state")
    parser.add_argument("--rates", default="205,1000,5000")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--qps", default="1000", help="the rate limit of the process")
    asked = parser.parse_args()
    shape = Shape(
        clusters=asked.clusters,
        nodes=asked.nodes,
        identities=asked.identities,
        endpoints=asked.endpoints,
        services=asked.services,
    )
    world = World(shape, Layout(asked.layout))
    with tempfile.TemporaryDirectory(prefix="cm-bench-") as name:
        folder = Path(name)
        idle = await empty_start(folder / "idle")
        async with AsyncExitStack() as stack:
            await world.open(stack)
            target = stack.enter_context(running_etcd(options=LARGE))
            replica = stack.enter_context(Replica(folder / "mesh", target))
            cache = await stack.enter_async_context(
                open_etcd(target.config("root", qps=1e5, request_timeout=120.0))
            )
            await cache.connected(beyond=0)
            for cluster in world.clusters:
                replica.configure(cluster.name, world.etcds[cluster.name])
            etcd, began = Spent(target.pid), time.perf_counter()
            replica.start(*AS_SHIPPED, "--etcd-qps", asked.qps)
            await complete(cache, [cluster.name for cluster in world.clusters])
            wall, full, etcd_full = (
                time.perf_counter() - began,
                Spent(replica.pid),
                Spent(target.pid),
            )
            pairs = await world.wanted()
            count = len(pairs)
            floor = await reference(pairs)
            print(f"{len(world.clusters)} clusters, {count} keys, limit {asked.qps}/s")
            print(f"empty process: {idle.cpu:.2f} s CPU, {idle.peak:.0f} MB")
            print("| cold copy | wall s | CPU ms/key | etcd CPU ms/key | RSS MB | etcd RSS MB |")
            print(
                f"| kvstoremesh | {wall:.1f} | {(full.cpu - idle.cpu) / count * 1e3:.3f} "
                f"| {(etcd_full.cpu - etcd.cpu) / count * 1e3:.3f} | {full.peak:.0f} "
                f"| {etcd_full.peak:.0f} |"
            )
            own, other = floor[1] / count * 1e3, floor[2] / count * 1e3
            print(f"| writing alone | {floor[0]:.1f} | {own:.3f} | {other:.3f} | | |")
            print(
                "| churn | events/s | p50 ms | p99 ms | max ms | CPU ms/event | etcd CPU ms/event "
                "| coalesced |"
            )
            changes = story(world.clusters, Rates(), seed=1)
            rates = [float(rate) for rate in asked.rates.split(",") if rate]
            for rate in rates:
                who = "kvstoremesh", replica.pid
                await churned(world, changes, cache, who, target, rate=rate, seconds=asked.seconds)
            await asyncio.sleep(1)
            held = await listed(cache, "cilium/cache/")
            same = {key: entry.value for key, entry in held.items()} == await world.wanted()
            print(f"at the end the cache {'equals' if same else 'DIFFERS FROM'} the sources")
            print(f"peak RSS {Spent(replica.pid).peak:.0f} MB, {len(held)} keys")
            if not same:
                sys.exit(1)
            replica.stop()
            with bare(world, target) as pid:
                for rate in rates:
                    who = "bare gRPC", pid
                    await churned(
                        world, changes, cache, who, target, rate=rate, seconds=asked.seconds
                    )


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a file
    asyncio.run(main())
