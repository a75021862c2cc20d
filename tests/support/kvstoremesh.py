"""Real kvstoremesh processes beside real etcds: sources with recorded clusters, and the cache."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import yaml

from clustermesh import keys
from clustermesh.keys import Kind, Layout
from kvstore.client import PutOp, Store, WriteOp
from kvstore.etcd import open_etcd
from tests.support import apiserver
from tests.support.etcd import Etcd

GENEROUS = apiserver.GENEROUS
BEAT = b"2026-11-21T00:28:21Z"


class Replica:
    """One process. Use it as a context manager: it is killed at the end."""

    def __init__(self, folder: Path, cache: Etcd, *, name: str = "a") -> None:
        self.folder = folder
        self.cache = cache
        self.name = name
        self.remotes = folder / "remotes"
        self.remotes.mkdir(parents=True, exist_ok=True)
        self.client = folder / "own.yaml"
        self.socket = folder / f"{name}.sock"
        self.log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        write_client(self.client, cache, "admin-home")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGKILL)

    # --- configuration ---------------------------------------------------------------------------

    def configure(self, cluster: str, source: Etcd, **changes: object) -> None:
        """Write the cluster's file in one step."""
        fresh = self.folder / f"{cluster}.new"
        write_client(fresh, source, "remote", **changes)
        fresh.replace(self.remotes / cluster)

    def remove(self, cluster: str) -> None:
        """Remove the cluster's file."""
        (self.remotes / cluster).unlink()

    # --- the process -----------------------------------------------------------------------------

    def argv(self, *flags: str) -> list[str]:
        """Its command line; later flags win."""
        return [
            *(sys.executable, "-W", "error", "-m", "clustermesh.kvstoremesh.main"),
            *("--cluster-name", "home", "--cluster-id", "1"),
            *("--etcd-config", str(self.client), "--clustermesh-config", str(self.remotes)),
            *("--api-socket", str(self.socket), "--replica-name", self.name),
            *("--config-recheck", "100ms", "--reconnect-ceiling", "200ms", "--doubt", "0"),
            *("--drain-wait", "300ms", "--drain-retry", "50ms", "--leader-ttl", "2s"),
            *("--log-format", "json", "--etcd-qps", "10000"),
            *flags,
        ]

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self, *flags: str) -> None:
        """Start it; it is not ready yet."""
        assert self._process is None
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self.argv(*flags)],
                stdout=log,
                stderr=log,
                env=_environment(),
            )

    async def ready(self, *flags: str) -> None:
        """Start it and wait until it says so."""
        self.start(*flags)
        await apiserver.until(self.is_ready)

    async def is_ready(self) -> bool:
        """Whether it does."""
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()[-2000:]
        return (await self.ask("GET /readyz"))[0] == 200

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait; the exit code."""
        if self._process is None:
            return 0
        self._process.send_signal(number)
        code = self._process.wait(timeout=GENEROUS)
        self._process = None
        return code

    def run(self, *flags: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            self.argv(*flags), capture_output=True, text=True, timeout=GENEROUS, env=_environment()
        )

    def show(self, *flags: str) -> subprocess.CompletedProcess[str]:
        """``kvstoremesh status``."""
        command = [sys.executable, "-m", "clustermesh.kvstoremesh.main", "status"]
        return subprocess.run(
            [*command, "--api-socket", str(self.socket), *flags],
            capture_output=True,
            text=True,
            timeout=GENEROUS,
            env=_environment(),
        )

    async def ask(self, request: str) -> tuple[int, str]:
        """Status and text of a request on the unix socket; 0 when nobody answers."""
        return await apiserver.request(self.socket, request)

    async def status(self) -> dict[str, Any]:
        """GET /v1/status."""

        async def answer() -> str:
            code, text = await self.ask("GET /v1/status")
            return text if code == 200 else ""

        value: dict[str, Any] = json.loads(await apiserver.until(answer))
        return value

    async def remote(self, cluster: str) -> dict[str, Any]:
        """What it says of one cluster; empty when it knows none of that name."""
        remotes = (await self.status())["remotes"]
        return next((one for one in remotes if one["name"] == cluster), {})


def write_client(path: Path, etcd: Etcd, user: str, **changes: object) -> None:
    """An etcd client file."""
    content: dict[str, object] = {"endpoints": [etcd.url]}
    if etcd.tls is not None:
        cert, key = etcd.tls.issue(user)
        content |= {
            "trusted-ca-file": str(etcd.tls.ca),
            "cert-file": str(cert),
            "key-file": str(key),
        }
    path.write_text(yaml.safe_dump(content | changes))


def _environment() -> dict[str, str]:
    return {name: text for name, text in os.environ.items() if not name.startswith("CLUSTERMESH_")}


# --- clusters ------------------------------------------------------------------------------------


CONFIG = b'{"id":%d,"capabilities":{"syncedCanaries":true,"maxConnectedClusters":255}}'


def config(number: int) -> bytes:
    """A cluster-config."""
    return CONFIG % number


def cluster(
    name: str, number: int, facts: dict[Kind, dict[str, bytes]], *, layout: Layout = Layout.STATE
) -> list[WriteOp]:
    """Everything a control plane writes, in its order: config, data, canaries, heartbeat."""
    said = config(number)
    if layout is Layout.CACHE:
        said = said.replace(b'"syncedCanaries"', b'"cached":true,"syncedCanaries"')
    ops: list[WriteOp] = [PutOp(keys.cluster_config(name), said)]
    for kind, values in facts.items():
        prefix = keys.prefix(kind, layout, name)
        ops += (PutOp(prefix + key, value) for key, value in values.items())
    ops += (PutOp(keys.canary(kind, layout, name), BEAT) for kind in Kind)
    return [*ops, PutOp(keys.HEARTBEAT, BEAT)]


SHOP: dict[Kind, dict[str, bytes]] = {
    Kind.NODES: {"n1": b'{"Name":"n1","Cluster":"paris","ClusterID":7}'},
    Kind.IDENTITIES: {"458761": b"k8s:io.cilium.k8s.policy.cluster=paris;"},
    Kind.IPS: {"10.7.0.44": b'{"IP":"10.7.0.44"}', "10.9.0.0/24": b"\xff\x00 not even JSON"},
    Kind.SERVICES: {"shop/cart": b"{}", "shop/till": b"{ }"},
}


async def write(etcd: Etcd, ops: Iterable[WriteOp]) -> None:
    """Commit operations in transactions of any number."""
    async with open_etcd(etcd.config("root")) as store:
        await commit(store, ops)


async def commit(store: Store, ops: Iterable[WriteOp]) -> None:
    """The same with a store that is open."""
    waiting = list(ops)
    for at in range(0, len(waiting), 128):
        await store.commit(waiting[at : at + 128])


async def copied(etcd: Etcd, name: str) -> dict[Kind, dict[str, bytes]]:
    """What the cache holds of a cluster, by kind and name; kinds without keys are left out."""
    found = await apiserver.contents(etcd)
    prefixes = {kind: keys.prefix(kind, Layout.CACHE, name) for kind in Kind}
    held = {
        kind: {
            key.removeprefix(prefix): entry.value
            for key, entry in found.items()
            if key.startswith(prefix)
        }
        for kind, prefix in prefixes.items()
    }
    return {kind: values for kind, values in held.items() if values}
