"""What goes into a sysdump, from where; a part that cannot be had is no reason to end."""

import os
import platform
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Final

import msgspec

from bpf.errors import BpfError
from clustermesh.meshctl import api, bpf, kvstore, pins
from clustermesh.meshctl.output import columns
from clustermesh.meshfile import Cluster, Mesh, Node
from clustermesh.version import VERSION

TIMEOUT: Final = 20.0
LOG: Final = 2 << 20
"""Bytes of the end of a log."""
LINES: Final = 20_000
KEYS: Final = 100_000

Place = tuple[str, ...]
Job = tuple[Place, Callable[[], bytes]]
Got = tuple[Place, bytes | None, str]
"""A place, its content or None, and why there is none."""

AGENT: Final = (
    *("status", "cluster", "probes", "services", "nodes", "identities", "premises"),
    *("network", "troubleshoot", "audit", "loglevel"),
)
APISERVER: Final = ("status", "loglevel")
KVSTOREMESH: Final = ("status", "cluster", "loglevel")
MAPS: Final[dict[str, bpf.Read]] = {
    "tunnel": bpf.read_tunnel,
    "ipcache": bpf.read_ipcache,
    "services": bpf.read_frontends,
    "lb": bpf.read_services,
    "backends": bpf.read_backends,
    "reverse-nat": bpf.read_reverse_nat,
    "selection-tables": bpf.read_tables,
    "nodes": bpf.read_nodes,
    "metrics": bpf.read_metrics,
}


def everything(mesh: Mesh, logs: tuple[Path, ...]) -> Iterator[Got]:
    """Every part, as they come; several are asked for at a time."""
    jobs = list(_jobs(mesh, logs))
    with ThreadPoolExecutor(max_workers=6) as pool:
        yield from pool.map(_tried, jobs)


def _tried(job: Job) -> Got:
    place, get = job
    try:
        return place, get(), ""
    except (OSError, api.NoAnswer, BpfError, msgspec.MsgspecError) as error:
        return place, None, str(error) or type(error).__name__


def _jobs(mesh: Mesh, logs: tuple[Path, ...]) -> Iterator[Job]:
    yield ("versions.json",), _versions
    yield ("mesh.json",), lambda: _json(msgspec.to_builtins(mesh, enc_hook=str))
    for cluster in mesh.clusters:
        top = ("clusters", cluster.name)
        yield from _apiserver(top, cluster)
        yield from _kvstoremesh(top, cluster)
        yield from _pod_logs(top, cluster)
        yield (*top, "files.txt"), partial(_files, cluster)
        for node in cluster.nodes:
            yield from _agent((*top, "nodes", node.name), node)
    for folder in logs:
        yield from _logs(folder)


def _apiserver(top: Place, cluster: Cluster) -> Iterator[Job]:
    if not cluster.apiserver:
        return
    url = cluster.apiserver
    for what in APISERVER:
        yield (*top, "apiserver", f"{what}.json"), partial(_get, url, f"/v1/{what}")
    yield (*top, "apiserver", "metrics.txt"), partial(_get, url, "/metrics")
    for tree in ("cilium/", "clustermesh/"):
        name = f"{tree.rstrip('/')}.ndjson"
        yield (*top, "kvstore", name), partial(_keys, cluster, tree)


def _kvstoremesh(top: Place, cluster: Cluster) -> Iterator[Job]:
    if cluster.kvstoremesh:
        for what in KVSTOREMESH:
            yield (
                (*top, "kvstoremesh", f"{what}.json"),
                partial(_get, cluster.kvstoremesh, f"/v1/{what}"),
            )
        yield (*top, "kvstoremesh", "metrics.txt"), partial(_get, cluster.kvstoremesh, "/metrics")


def _pod_logs(top: Place, cluster: Cluster) -> Iterator[Job]:
    """The ends of the logs of every container of the mesh, where Kubernetes keeps them."""
    if not cluster.context:
        return
    from clustermesh.meshctl.kube import members
    from clustermesh.places.connection import connection

    made = connection(cluster.context, cluster.kubeconfig)
    try:
        found = list(members.logs(cluster))
    except api.NoAnswer as error:
        yield (*top, "logs", "pods.txt"), partial(_silent, str(error))
        return
    for pod, container, path in found:
        place = (*top, "logs", pod, f"{container}.log")
        yield place, partial(made.text, f"{path}&tailLines={LINES}&limitBytes={LOG}")


def _silent(why: str) -> bytes:
    raise api.NoAnswer(why)


def _agent(top: Place, node: Node) -> Iterator[Job]:
    for what in AGENT:
        yield (*top, f"{what}.json"), partial(_get, node.agent, f"/v1/{what}")
    yield (*top, "metrics.txt"), partial(_get, node.agent, "/metrics")
    for name, read in MAPS.items():
        yield (*top, "maps", f"{name}.txt"), partial(_map, read, node)


def _get(url: str, path: str) -> bytes:
    code, body = api.get(url, path, timeout=TIMEOUT)
    if code != HTTPStatus.OK:
        raise api.NoAnswer(f"{path} answers {code}: {body[:200].decode(errors='replace')}")
    return body


def _keys(cluster: Cluster, tree: str) -> bytes:
    lines = (
        msgspec.json.encode(kvstore.shown(entry, raw=False))
        for entry in kvstore.entries(cluster, tree, KEYS)
    )
    return b"\n".join(lines) + b"\n"


def _map(read: bpf.Read, node: Node) -> bytes:
    rows = read(pins.of(node))
    return f"{columns([''] * len(rows[0]), rows).lstrip()}\n".encode() if rows else b""


def _files(cluster: Cluster) -> bytes:
    """Which files there are, not what is in them: some hold keys."""
    rows = [
        (str(path), oct(path.stat().st_mode & 0o7777), str(path.stat().st_size))
        for folder in (cluster.config_dir, cluster.ca_cert.parent)
        if folder.is_absolute() and folder.is_dir()
        for path in sorted(folder.iterdir())
        if path.is_file()
    ]
    return f"{columns(('FILE', 'MODE', 'BYTES'), rows)}\n".encode()


def _logs(folder: Path) -> Iterator[Job]:
    """The ends of ``*.log`` below a folder; links are not followed."""
    for path in sorted(folder.rglob("*.log")):
        if path.is_file() and not path.is_symlink():
            place = ("logs", *path.relative_to(folder).parts)
            yield place, partial(_end_of, path)


def _end_of(path: Path) -> bytes:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - LOG))
        return file.read(LOG)


def _versions() -> bytes:
    return _json({
        "meshctl": VERSION,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
    })  # fmt: skip


def _json(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2)
