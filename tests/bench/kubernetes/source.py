"""What reading a large cluster costs. `python tests/bench/kubernetes/source.py`.

10,000 services with 100,000 endpoints in 10,000 slices, as an API server writes them, over TLS;
the test API server and the reader are processes of their own. The reference is ``json.loads`` of
the same bytes in the same process: what a client that makes dicts pays for reading alone.
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).parents[3]))

from clustermesh.sources.kubernetes.api import Api
from clustermesh.sources.kubernetes.resources import Flavour
from clustermesh.sources.kubernetes.settings import KubernetesSettings
from clustermesh.sources.kubernetes.source import KubernetesSource
from clustermesh.sources.objects import EndpointSlice, ObjectKind
from clustermesh.sources.port import ObjectChange, Upsert
from tests.support.kube import manifests as make
from tests.support.kube.admin import Admin
from tests.support.kube.fake import FakeKube
from tests.support.kube.kubeserver import ADMIN_TOKEN, Kube
from tests.support.kube.store import Manifest

KINDS = frozenset({ObjectKind.SERVICE, ObjectKind.ENDPOINT_SLICE, ObjectKind.NAMESPACE})
SENT = "bench/sent"


# --- the API server ----------------------------------------------------------------------------


def dressed(manifest: Manifest, number: int) -> Manifest:
    """With what every object of a real cluster carries and nobody reads."""
    kind = manifest["kind"]
    manifest["metadata"] |= {
        "uid": f"79bf9127-2455-46b9-8931-{number:012d}",
        "resourceVersion": str(1000 + number),
        "creationTimestamp": "2026-11-21T00:32:54Z",
        "generation": 3,
        "managedFields": [
            {
                "manager": "kube-controller-manager",
                "operation": "Update",
                "apiVersion": manifest["apiVersion"],
                "time": "2026-11-21T00:32:54Z",
                "fieldsType": "FieldsV1",
                "fieldsV1": {f"f:{name}": {".": {}, f"f:{kind}": {}} for name in "abcdefgh"},
            }
        ],
    }
    for endpoint in manifest.get("endpoints", ()):
        endpoint |= {
            "nodeName": f"node-{number % 500}",
            "zone": "zone-a",
            "targetRef": {
                "kind": "Pod",
                "namespace": "default",
                "name": f"app-{number}-5d8f9c7b6d-{number % 97}",
                "uid": f"79bf9127-2455-46b9-8931-{number:012d}",
            },
        }
        endpoint["conditions"] |= {"serving": True, "terminating": False}
    return manifest


def ip(number: int) -> str:
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def slice_of(number: int, endpoints: int) -> Manifest:
    ips = [ip(number * endpoints + each) for each in range(endpoints)]
    return dressed(make.endpoint_slice(f"app-{number}-x7k2p", f"app-{number}", *ips), number)


async def serve(folder: Path, count: int, endpoints: int) -> None:
    server = FakeKube(folder)
    store = server.api.store
    for number in range(count):
        service = dressed(make.service(f"app-{number}", ip(number)), number)
        store.objects.setdefault("services", {})["default", f"app-{number}"] = service
        held = store.objects.setdefault("endpointslices.discovery.k8s.io", {})
        held["default", f"app-{number}-x7k2p"] = slice_of(number, endpoints)
    store.revision = store.oldest = 1000 + count
    await server.start()
    async with Admin(server.url, server.authority.pem, ADMIN_TOKEN) as admin:
        Kube(server, admin, folder).kubeconfig("bench")
        (folder / "ready").write_text(json.dumps([server.url, server.authority.pem]))
        await asyncio.sleep(3600)


# --- the reader --------------------------------------------------------------------------------


class Counting:
    """A sink that keeps nothing: what is measured is the source alone."""

    def __init__(self) -> None:
        self.objects = 0
        self.synced_kinds: set[ObjectKind] = set()
        self.whole = asyncio.Event()
        self.delays: list[float] = []

    def apply(self, _kind: ObjectKind, changes: Sequence[ObjectChange]) -> None:
        self.objects += len(changes)
        now = time.time()
        for change in changes if self.whole.is_set() else ():
            match change:
                case Upsert(EndpointSlice(metadata=meta)):
                    self.delays.append(now - float((meta.annotations or {}).get(SENT, now)))

    def synced(self, kind: ObjectKind) -> None:
        self.synced_kinds.add(kind)
        if self.synced_kinds == KINDS:
            self.whole.set()

    def refused(self, _what: str, reason: str | None) -> None:
        raise AssertionError(reason)

    def trouble(self, _kind: ObjectKind | None, reason: str | None) -> None:
        raise AssertionError(reason)


def peak() -> float:
    """MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def read(
    folder: Path, *, watch_list: bool, churn: int = 0, watched: bool = False
) -> dict[str, float]:
    """``watched``: look at the turns of the loop, which costs more than the turns themselves."""
    settings = KubernetesSettings(
        kubeconfig=folder / "bench.kubeconfig", watch_list=watch_list, flavour=Flavour.CORE
    )
    sink, stall = Counting(), Stall()
    async with Api(settings) as api, asyncio.TaskGroup() as tasks:
        await api.get("/api/v1/namespaces")
        before, cpu, wall = peak(), time.process_time(), time.perf_counter()
        source = KubernetesSource(api, Flavour.CORE, settings, KINDS)
        running = tasks.create_task(source.run(sink))
        watching = tasks.create_task(stall.run()) if not churn and watched else None
        await sink.whole.wait()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        found = {
            "us": cpu / sink.objects * 1e6,
            "objects": sink.objects,
            "wall": wall,
            "peak": peak() - before,
            "stall": stall.longest * 1e3,
        }
        if watching:
            watching.cancel()
        if churn:
            (folder / "go").write_text("")
            cpu, idle = time.process_time(), time.perf_counter()
            while len(sink.delays) < churn:  # noqa: ASYNC110 - what would wake us costs CPU
                await asyncio.sleep(0.05)
            cpu = time.process_time() - cpu
            delays = sorted(sink.delays)
            found |= {
                "event_us": cpu / churn * 1e6,
                "p50": statistics.median(delays) * 1e3,
                "p99": delays[int(len(delays) * 0.99)] * 1e3,
                "max": delays[-1] * 1e3,
                "rate": churn / (time.perf_counter() - idle),
            }
        running.cancel()
    return found


class Stall:
    """Most CPU between two turns of the loop."""

    longest = 0.0

    async def run(self) -> None:
        before = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            self.longest = max(self.longest, now - before)
            before = now


async def reference(folder: Path) -> dict[str, float]:
    """The same lists, whole, through json.loads."""
    settings = KubernetesSettings(kubeconfig=folder / "bench.kubeconfig")
    async with Api(settings) as api:
        bodies = [
            await api.get("/api/v1/services"),
            await api.get("/apis/discovery.k8s.io/v1/endpointslices"),
        ]
    before, cpu = peak(), time.process_time()
    decoded: list[Any] = [json.loads(body) for body in bodies]
    cpu = time.process_time() - cpu
    count = sum(len(each["items"]) for each in decoded)
    return {
        "us": cpu / count * 1e6,
        "objects": count,
        "bytes": sum(map(len, bodies)) / count,
        "peak": peak() - before,
    }


# --- putting it together -----------------------------------------------------------------------


def child(folder: Path, *arguments: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--folder", str(folder), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = msgspec.json.decode(done.stdout)
    return found


async def change(folder: Path, count: int, endpoints: int, rate: float) -> None:
    """EndpointSlice updates at a steady rate, once the reader is ready."""
    url, ca = json.loads((folder / "ready").read_text())
    async with Admin(url, ca, ADMIN_TOKEN) as admin:
        while not (folder / "go").exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.05)
        began = time.perf_counter()
        for number in range(count):
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            manifest = slice_of(number, endpoints)
            del manifest["metadata"]["resourceVersion"]
            manifest["metadata"]["annotations"] = {SENT: repr(time.time())}
            path = f"/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/app-{number}-x7k2p"
            await admin.call("PUT", path, manifest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, default=10_000)
    parser.add_argument("--endpoints", type=int, default=10)
    parser.add_argument("--updates", type=int, default=2_000)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--do", default="", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    match chosen.do:
        case "serve":
            asyncio.run(serve(chosen.folder, chosen.services, chosen.endpoints))
        case "change":
            asyncio.run(change(chosen.folder, chosen.updates, chosen.endpoints, chosen.rate))
        case "reference":
            print(json.dumps(asyncio.run(reference(chosen.folder))))
        case "pages" | "stream" | "updates" | "pages-turns" | "stream-turns" as mode:
            work = read(
                chosen.folder,
                watch_list=not mode.startswith("pages"),
                churn=chosen.updates if mode == "updates" else 0,
                watched=mode.endswith("-turns"),
            )
            print(json.dumps(asyncio.run(work)))
        case _:
            report(chosen)


def report(chosen: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="cm-bench-") as name:
        folder = Path(name)
        sizes = ["--services", str(chosen.services), "--endpoints", str(chosen.endpoints)]
        pace = ["--updates", str(chosen.updates), "--rate", str(chosen.rate)]
        command = [sys.executable, __file__, "--folder", name, *sizes, *pace]
        helpers = [subprocess.Popen([*command, "--do", "serve"])]
        try:
            while not (folder / "ready").exists():
                time.sleep(0.05)
            base = child(folder, "--do", "reference")
            print(
                f"{chosen.services:,} services, {chosen.services * chosen.endpoints:,} endpoints,"
                f" {base['bytes']:.0f} bytes an object"
            )
            heads = f"{'CPU/object':>12}{'ratio':>8}{'memory':>10}{'ratio':>8}{'longest turn':>14}"
            print(f"{'':<10}{heads}")
            print(
                f"{'json.loads':<10}{base['us']:>9.1f} us{1:>8.2f}{base['peak']:>7.0f} MB{1:>8.2f}"
            )
            for mode in ("pages", "stream"):
                found = child(folder, "--do", mode)
                turns = child(folder, "--do", f"{mode}-turns")
                print(
                    f"{mode:<10}{found['us']:>9.1f} us{found['us'] / base['us']:>8.2f}"
                    f"{found['peak']:>7.0f} MB{found['peak'] / base['peak']:>8.2f}"
                    f"{turns['stall']:>11.1f} ms"
                )
            helpers.append(subprocess.Popen([*command, "--do", "change"]))
            found = child(folder, *pace, "--do", "updates")
            print(
                f"updates, {found['rate']:.0f}/s: {found['event_us']:.0f} us CPU each; delay p50"
                f" {found['p50']:.1f} ms, p99 {found['p99']:.1f} ms, max {found['max']:.1f} ms"
                " (from the client that writes, through the test API server)"
            )
        finally:
            for helper in helpers:
                helper.kill()
                helper.wait()


if __name__ == "__main__":
    main()
