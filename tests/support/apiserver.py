"""A real clustermesh-apiserver process beside a real etcd, with its files in a folder."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml

from kvstore.client import Entry, Store, Unavailable
from kvstore.etcd import open_etcd
from kvstore.events import Change, Delete, Put
from tests.support.etcd import Etcd

T = TypeVar("T")

GENEROUS = 40.0  # seconds: nothing here takes that long unless it never happens


class Apiserver:
    """One cluster's process. Use it as a context manager: it is killed at the end."""

    def __init__(
        self, folder: Path, etcd: Etcd, *, cluster: str = "paris", number: int = 7
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.etcd = etcd
        self.cluster = cluster
        self.number = number
        self.manifests = folder / "manifests"
        self.manifests.mkdir(exist_ok=True)
        self.users = folder / "users.yaml"
        self.users.write_text("users: []\n")
        self.users_flag: tuple[str, ...] = (
            *("--cluster-users-config-path", str(self.users)),
            "--cluster-users-recheck=100ms",
        )
        self.socket = folder / "api.sock"
        self.client = folder / "etcd.yaml"
        self.log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self.write_client()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGKILL)

    # --- files -----------------------------------------------------------------------------------

    def write_client(self, user: str | None = None, **changes: object) -> None:
        """The etcd client file, with the certificate of ``user`` (of the administrator)."""
        content: dict[str, object] = {"endpoints": [self.etcd.url]}
        if self.etcd.tls is not None:
            cert, key = self.etcd.tls.issue(user or f"admin-{self.cluster}")
            content |= {
                "trusted-ca-file": str(self.etcd.tls.ca),
                "cert-file": str(cert),
                "key-file": str(key),
            }
        self.client.write_text(yaml.safe_dump(content | changes))

    def manifest(self, name: str, *documents: dict[str, Any]) -> None:
        """Replace a manifest file in one step; none of documents removes it."""
        path = self.manifests / f"{name}.yaml"
        if not documents:
            path.unlink()
            return
        fresh = self.folder / f"{name}.new"
        fresh.write_text(yaml.safe_dump_all(documents))
        fresh.replace(path)

    def peers(self, *names: str) -> None:
        """Replace the users file."""
        users = [{"name": name, "role": "remote"} for name in names]
        fresh = self.folder / "users.new"
        fresh.write_text(yaml.safe_dump({"users": users}))
        fresh.replace(self.users)

    # --- the process -----------------------------------------------------------------------------

    def argv(self, *flags: str) -> list[str]:
        """Its command line; later flags win."""
        return [
            *(sys.executable, "-m", "clustermesh.apiserver.main"),
            *("--cluster-name", self.cluster, "--cluster-id", str(self.number)),
            *("--etcd-config", str(self.client)),
            *("--source", "directory", "--manifests", str(self.manifests)),
            *self.users_flag,
            *("--state-dir", str(self.folder / "state"), "--api-socket", str(self.socket)),
            *("--heartbeat-interval", "1s", "--log-format", "json"),
            "--propagation-interval=0s",
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

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait; the exit code."""
        if self._process is None:
            return 0
        self._process.send_signal(number)
        code = self._process.wait(timeout=GENEROUS)
        self._process = None
        return code

    def run(self, *flags: str) -> tuple[int, str]:
        """Run it to its end; exit code and what it said."""
        done = subprocess.run(
            self.argv(*flags),
            capture_output=True,
            text=True,
            timeout=GENEROUS,
            env=_environment(),
        )
        return done.returncode, done.stdout + done.stderr

    async def ready(self, *flags: str) -> None:
        """Start it and wait until /readyz says so."""
        self.start(*flags)
        await self.until_ready()

    async def until_ready(self) -> None:
        """Wait until /readyz says so."""
        async with asyncio.timeout(GENEROUS):
            while await self.ask("GET /readyz") != (200, "Ready"):
                assert self._process is not None
                assert self._process.poll() is None, self.log.read_text()
                await asyncio.sleep(0.05)

    # --- HTTP ------------------------------------------------------------------------------------

    async def ask(self, line: str, body: str = "") -> tuple[int, str]:
        """Status and text of a request on the unix socket; 0 when nobody answers."""
        return await request(self.socket, line, body)

    async def status(self) -> dict[str, Any]:
        """GET /v1/status."""
        code, text = await self.ask("GET /v1/status")
        assert code == 200, text
        value: dict[str, Any] = json.loads(text)
        return value


async def request(socket: Path, line: str, body: str = "") -> tuple[int, str]:
    """Status and text of a request on a unix socket; 0 when nobody answers."""
    try:
        reader, writer = await asyncio.open_unix_connection(socket)
    except OSError:
        return 0, ""
    head = f"Host: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
    try:
        writer.write(f"{line} HTTP/1.1\r\n{head}\r\n{body}".encode())
        answer = (await reader.read()).decode()
    except ConnectionError:
        return 0, ""
    finally:
        writer.close()
    head, _, content = answer.partition("\r\n\r\n")
    return (int(head.split()[1]), content) if head else (0, "")


def _environment() -> dict[str, str]:
    return {name: text for name, text in os.environ.items() if not name.startswith("CLUSTERMESH_")}


# --- what is in etcd -----------------------------------------------------------------------------


async def contents(etcd: Etcd, prefix: str = "c") -> dict[str, Entry]:
    """Every key under the prefix, as root."""
    async with open_etcd(etcd.config("root")) as store:
        return await listed(store, prefix)


async def listed(store: Store, prefix: str = "c") -> dict[str, Entry]:
    """Every key under the prefix."""
    found: dict[str, Entry] = {}
    async for page in store.pages(prefix):
        found |= {entry.key: entry for entry in page.entries}
    return found


async def until(check: Callable[[], Awaitable[T]]) -> T:
    """Ask again until the answer is true; that answer."""
    async with asyncio.timeout(GENEROUS):
        while not (answer := await check()):  # noqa: ASYNC110  # another process has no event
            await asyncio.sleep(0.05)
    return answer


class Recording:
    """Every change under ``cilium/`` and ``clustermesh/``, from now on."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.revision = 0

    async def run(self, store: Store, standing: asyncio.Event) -> None:
        """Record for ever; an interrupted watch goes on where it stopped."""
        async for page in store.pages("c"):
            self.revision = page.revision
        while True:
            with suppress(Unavailable):
                async for batch in store.changes("c", after=self.revision):
                    standing.set()
                    self.changes += batch.events
                    self.revision = batch.revision
            await asyncio.sleep(0.05)

    async def catch_up(self, store: Store) -> None:
        """What is in the store now has been seen, too; a store that is down has nothing to say."""
        with suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(GENEROUS):
                newest = 0
                async for page in store.pages("c"):
                    newest = max(newest, *(entry.revision for entry in page.entries), 0)
                while self.revision < newest:  # noqa: ASYNC110  # another task reads
                    await asyncio.sleep(0.01)

    def deleted(self) -> list[str]:
        """Keys that went away, in order."""
        return [change.key for change in self.changes if isinstance(change, Delete)]

    def put(self) -> list[str]:
        """Keys that were written, in order."""
        return [change.key for change in self.changes if isinstance(change, Put)]


@asynccontextmanager
async def recording(etcd: Etcd) -> AsyncIterator[Recording]:
    """Record what readers would see while the block runs."""
    made, standing = Recording(), asyncio.Event()
    async with open_etcd(etcd.config("root")) as store, asyncio.TaskGroup() as tasks:
        task = tasks.create_task(made.run(store, standing), name="recording")
        await standing.wait()
        try:
            yield made
            await made.catch_up(store)
        finally:
            task.cancel()


# --- manifests -----------------------------------------------------------------------------------


def service(name: str, **annotations: str) -> dict[str, Any]:
    """A Service in the namespace shop, global unless told otherwise."""
    notes = {"service.cilium.io/global": "true"}
    notes |= {f"service.cilium.io/{key}": value for key, value in annotations.items()}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "shop", "annotations": notes},
        "spec": {"clusterIP": "10.107.0.9", "ports": [{"name": "http", "port": 80}]},
    }


def slice_of(name: str, *addresses: str) -> dict[str, Any]:
    """The EndpointSlice of a service."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{name}-a",
            "namespace": "shop",
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [each], "conditions": {"ready": True}} for each in addresses],
        "ports": [{"name": "http", "port": 8080}],
    }


def node(name: str, address: str, pods: str) -> dict[str, Any]:
    """A v1 Node."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "spec": {"podCIDRs": [pods]},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    }


def pod(name: str, address: str, on: str, **labels: str) -> dict[str, Any]:
    """A running v1 Pod in the namespace shop."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "labels": labels},
        "spec": {"nodeName": on},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    }


NAMESPACE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": "shop", "labels": {"kubernetes.io/metadata.name": "shop"}},
}


def shop(apiserver: Apiserver) -> None:
    """A small cluster of flavour core: one node, two pods of two identities, one service."""
    apiserver.manifest("shop", NAMESPACE, node("n1", "192.0.2.11", "10.7.0.0/24"))
    apiserver.manifest("cart", service("cart"), slice_of("cart", "10.7.0.44"))
    apiserver.manifest("pods", pod("cart-0", "10.7.0.44", "n1", app="cart"))
    apiserver.manifest("web", pod("web-0", "10.7.0.45", "n1", app="web"))
