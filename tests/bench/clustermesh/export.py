"""From API bytes to keys: CPU and memory per object. `python tests/bench/clustermesh/export.py`.

Times are process CPU. The reference of the same run is decoding and encoding the values alone,
which nobody who publishes them can avoid.
"""

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

import msgspec

from clustermesh import keys, local
from clustermesh.export import Exporter, ExportSettings
from clustermesh.keys import Kind, Layout, Origin
from clustermesh.sources import objects
from clustermesh.sources.objects import ObjectKind
from clustermesh.sources.port import Upsert

SERVICES, ENDPOINTS, NODES = 10_000, 100_000, 5_000
BACKENDS = 10
BATCH = 1000
IDENTITY = 7 << 16


def meta(number: int, **more: object) -> dict[str, object]:
    return {"name": f"o-{number}", "namespace": f"n-{number % 100}", "uid": "x" * 36, **more}


def ip(number: int) -> str:
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def node(number: int) -> object:
    told = [
        {"type": "InternalIP", "ip": ip(number)},
        {"type": "CiliumInternalIP", "ip": ip(~number)},
    ]
    ranges = {"podCIDRs": [f"{ip(number << 8)}/24"]}
    return {"metadata": meta(number, namespace=""), "spec": {"addresses": told, "ipam": ranges}}


def service(number: int) -> object:
    annotations = {"service.cilium.io/global": "true"}
    return {
        "metadata": meta(number, annotations=annotations, labels={"app": f"o-{number}"}),
        "spec": {"clusterIP": ip(number), "ports": [{"name": "http", "port": 80}]},
    }


def slice_(number: int, backends: int = BACKENDS) -> object:
    return {
        "metadata": meta(number, labels={"kubernetes.io/service-name": f"o-{number}"}),
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [
            {
                "addresses": [ip(number * BACKENDS + each)],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "nodeName": f"node-{each}",
                "zone": "eu-1a",
            }
            for each in range(backends)
        ],
    }


def endpoint(number: int) -> object:
    networking = {"addressing": [{"ipv4": ip(number)}], "node": "192.0.2.1"}
    identity = {"id": IDENTITY + number % 1000}
    return {"metadata": meta(number), "status": {"identity": identity, "networking": networking}}


def memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def applied(
    exporter: Exporter, kind: ObjectKind, made: Callable[[int], object], count: int, name: str
) -> None:
    """Decode and apply ``count`` objects in batches, and print what one costs."""
    data = [msgspec.json.encode(made(number)) for number in range(count)]
    before, writes, start = memory(), 0, time.process_time()
    for first in range(0, count, BATCH):
        batch = [Upsert(objects.decode(kind, each)) for each in data[first : first + BATCH]]
        writes += len(exporter.apply(kind, batch))
    took = time.process_time() - start
    grown = (memory() - before) * 1024
    print(
        f"{name:<18}{count:>8} objects {took / count * 1e6:7.1f} us each, "
        f"{writes:>6} keys written, {grown / count:5.2f} KB each"
    )


def reference(exporter: Exporter) -> None:
    """Decoding and encoding every published value once, without any of our logic."""
    origin = Origin("paris", 7)
    places = {keys.prefix(kind, Layout.STATE, "paris"): kind for kind in Kind}
    wanted = exporter.wanted()
    start = time.process_time()
    for key, value in wanted.items():
        if key.startswith(local.SERVICES_PREFIX):
            local.encode(local.decode(key, value))
            continue
        kind = next(places[place] for place in places if key.startswith(place))
        keys.encode(keys.decode(kind, origin, key, value))
    took = time.process_time() - start
    each = took / len(wanted) * 1e6
    print(f"reference: {len(wanted)} values decoded and encoded, {each:.1f} us each")


def main() -> None:
    exporter = Exporter(ExportSettings(cluster="paris", cluster_id=7))
    print(f"before anything: {memory():.0f} MB")
    applied(exporter, ObjectKind.CILIUM_NODE, node, NODES, "nodes")
    applied(exporter, ObjectKind.SERVICE, service, SERVICES, "services")
    applied(exporter, ObjectKind.ENDPOINT_SLICE, slice_, SERVICES, "endpoint slices")
    applied(exporter, ObjectKind.CILIUM_ENDPOINT, endpoint, ENDPOINTS, "endpoints")
    applied(exporter, ObjectKind.ENDPOINT_SLICE, lambda n: slice_(n, 9), 2000, "slice updates")
    applied(exporter, ObjectKind.CILIUM_ENDPOINT, endpoint, ENDPOINTS, "endpoints, relisted")
    print(f"peak: {memory():.0f} MB, of which the input of the largest step")
    reference(exporter)


if __name__ == "__main__":
    main()
