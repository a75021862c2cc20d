"""A large cluster from nothing, and 200 slices a second after it: the real process, API to etcd.

`python tests/bench/apiserver/cold_start.py`. The test API server and a real etcd with TLS, the
process as an operator starts it. CPU is user plus system of the process. The reference of the same
run, for ratios: decoding the same objects and writing the same keys, with nothing in between.
Propagation is from the write in the API server to the arrival of the event at an etcd watcher.
"""

import argparse
import asyncio
import os
import resource
import statistics
import sys
import tempfile
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

import msgspec

from clustermesh.sources import objects
from clustermesh.sources.objects import ObjectKind
from kvstore.client import PutOp
from kvstore.etcd import open_etcd
from kvstore.events import Put
from tests.support.apiserver import Apiserver, contents
from tests.support.etcd import Etcd, running_etcd
from tests.support.kube import manifests as make
from tests.support.kube.fake import FakeKube, fake_kube
from tests.support.kube.kubeserver import Kube, running

Manifest = dict[str, Any]
TITLES = {
    "Service": "services",
    "Node": "nodes",
    "EndpointSlice": "endpointslices.discovery.k8s.io",
}
TICKS = os.sysconf("SC_CLK_TCK")


def address(first: int, number: int) -> str:
    return f"{first}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def world(services: int, endpoints: int, nodes: int) -> list[Manifest]:
    """Global services with their endpoints evenly spread, and nodes."""
    each = endpoints // services
    made: list[Manifest] = [
        make.node(f"node-{n}", address(192, n + 1), f"{address(10, n << 8)}/24")
        for n in range(nodes)
    ]
    for n in range(services):
        ips = [address(11, n * each + at) for at in range(each)]
        made.append(
            make.service(f"s{n}", address(172, n + 1), **{"service.cilium.io/global": "true"})
        )
        made.append(make.endpoint_slice(f"s{n}-a", f"s{n}", *ips))
    return made


def stock(server: FakeKube, manifests: list[Manifest]) -> None:
    """Put them into the server without the price of a request each."""
    store = server.api.store
    for manifest in manifests:
        meta = manifest["metadata"]
        meta |= {"uid": meta["name"], "creationTimestamp": "2026-11-20T10:00:00Z"}
        store.revision += 1
        meta["resourceVersion"] = str(store.revision)
        held = store.objects.setdefault(TITLES[manifest["kind"]], {})
        held[(meta.get("namespace", ""), meta["name"])] = manifest


class Spent:
    """CPU seconds and peak memory of a process so far."""

    def __init__(self, pid: int) -> None:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        self.cpu = (int(fields[11]) + int(fields[12])) / TICKS
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        )
        self.peak = int(status["VmHWM"].split()[0]) / 1024


async def reference(etcd: Etcd, manifests: list[Manifest], keys: dict[str, bytes]) -> float:
    """CPU of this process for decoding every object and writing every key in batches."""
    data = [(ObjectKind(one["kind"]), msgspec.json.encode(one)) for one in manifests]
    ops = [PutOp(f"x{key}", value) for key, value in keys.items()]
    async with open_etcd(etcd.config("root", qps=100_000.0)) as store:
        await store.connected(beyond=0)
        before = resource.getrusage(resource.RUSAGE_SELF)
        for kind, document in data:
            objects.decode(kind, document)
        for at in range(0, len(ops), 128):
            await store.commit(ops[at : at + 128])
        after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


async def churn(
    kube: Kube, etcd: Etcd, *, services: int, rate: float, seconds: float
) -> list[float]:
    """Seconds from each write in the API server to the event at a watcher."""
    server = kube.server
    assert isinstance(server, FakeKube)
    kind = next(one for one in server.api.catalog if one.name == "EndpointSlice")
    written: dict[str, tuple[bytes, float]] = {}
    delays: list[float] = []
    prefix = "cilium/state/services/v1/paris/default/"
    async with open_etcd(etcd.config("root")) as store, asyncio.TaskGroup() as tasks:
        await store.connected(beyond=0)
        revision = 0
        async for page in store.pages(prefix):
            revision = page.revision

        async def watch() -> None:
            async with aclosing(store.changes(prefix, after=revision)) as batches:
                async for batch in batches:
                    now = time.perf_counter()
                    for event in batch.events:
                        mark, at = written.get(event.key, (b"", 0.0))
                        if mark and isinstance(event, Put) and mark in event.value:
                            delays.append(now - at)
                            del written[event.key]

        watching = tasks.create_task(watch(), name="watch")
        began = time.perf_counter()
        count = int(rate * seconds)
        for n in range(count):
            await asyncio.sleep(max(0.0, began + n / rate - time.perf_counter()))
            name, ip = f"s{n % services}", address(12, n)
            written[prefix + name] = (ip.encode(), time.perf_counter())
            fresh = make.endpoint_slice(f"{name}-a", name, ip, address(11, n))
            await server.api.store.replace(kind, ("default", f"{name}-a"), fresh)
        async with asyncio.timeout(60):
            while written:  # noqa: ASYNC110  # another process has no event
                await asyncio.sleep(0.05)
        watching.cancel()
    return delays


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--services", type=int, default=10_000)
    parser.add_argument("--endpoints", type=int, default=100_000)
    parser.add_argument("--nodes", type=int, default=5_000)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    asked = parser.parse_args()
    manifests = world(asked.services, asked.endpoints, asked.nodes)
    with tempfile.TemporaryDirectory(prefix="cm-bench-") as name, running_etcd(tls=True) as etcd:
        folder = Path(name)
        with Apiserver(folder / "paris", etcd) as apiserver:
            async with running(fake_kube, folder) as kube:
                assert isinstance(kube.server, FakeKube)
                await kube.admin.apply(make.MESH_IDENTITIES)
                flags = ("--source=kubernetes", f"--kubeconfig={kube.kubeconfig()}")
                flags += ("--kube-namespace=default", "--flavour=core")
                await apiserver.ready(*flags)
                idle = Spent(apiserver.pid)
                apiserver.stop()
                stock(kube.server, manifests)
                began = time.perf_counter()
                await apiserver.ready(*flags)
                took, full = time.perf_counter() - began, Spent(apiserver.pid)
                found = await contents(etcd)
                floor = await reference(etcd, manifests, {k: e.value for k, e in found.items()})
                cpu = full.cpu - idle.cpu
                print(f"{len(manifests)} objects, {asked.endpoints} endpoints, {len(found)} keys")
                print(f"start of an empty cluster: {idle.cpu:.2f} s CPU, {idle.peak:.0f} MB")
                print(f"cold start: {took:.1f} s wall, {full.cpu:.2f} s CPU, {full.peak:.0f} MB")
                print(f"per object: {cpu / len(manifests) * 1e6:.0f} us CPU")
                print(f"decode and write alone: {floor:.2f} s CPU; ratio {cpu / floor:.2f}")
                before = Spent(apiserver.pid)
                delays = await churn(
                    kube, etcd, services=asked.services, rate=asked.rate, seconds=asked.seconds
                )
                after = Spent(apiserver.pid)
                apiserver.stop()
    cuts = statistics.quantiles(delays, n=100)
    print(
        f"{asked.rate:g} slices/s: {len(delays)} of {int(asked.rate * asked.seconds)} seen, "
        f"p50 {cuts[49] * 1e3:.1f}, p99 {cuts[98] * 1e3:.1f}, max {max(delays) * 1e3:.1f} ms, "
        f"{(after.cpu - before.cpu) / (asked.rate * asked.seconds) * 1e6:.0f} us CPU each, "
        f"peak {after.peak:.0f} MB"
    )


if __name__ == "__main__":
    asyncio.run(main())
