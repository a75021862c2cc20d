"""A node in a network namespace: the own cluster's etcd beside it, and a real agent process."""

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from clustermesh import gojson, keys, local
from clustermesh.keys import Kind, Layout
from clustermesh.local import Frontend, LocalBackend, LocalService, NamedPort
from clustermesh.model import (
    Capabilities,
    Cidr,
    ClusterConfig,
    ClusterService,
    Identity,
    IPEntry,
    Node,
    NodeAddress,
    Port,
)
from kvstore.client import DeleteOp, PutOp
from kvstore.config import EtcdConfig
from kvstore.etcd import open_etcd
from tests.support.bpf import child_cgroup, netns, private_bpffs
from tests.support.etcd import Etcd, running_etcd

NODE_IP: Final = "192.0.2.1"
KINDS: Final = (Kind.NODES, Kind.IDENTITIES, Kind.IPS, Kind.SERVICES)


class Place:
    """One node: its namespace, file systems, and etcds that only it reaches."""

    def __init__(self, name: str, folder: Path, bpf: Path, cgroup: Path) -> None:
        self.name = name
        self.folder = folder
        self.bpf = bpf
        self.cgroup = cgroup
        self.remotes = folder / "remotes"
        self.remotes.mkdir()
        self.socket = folder / "agent.sock"

    def arguments(self, own: Etcd, *more: str) -> list[str]:
        config = self.folder / "own.yaml"
        config.write_text(f"endpoints:\n- {own.url}\n")
        return [
            *("--cluster-name", "home", "--cluster-id", "1"),
            *("--node-name", "node-a", "--node-ip", NODE_IP),
            *("--etcd-config", str(config), "--clustermesh-config", str(self.remotes)),
            *("--state-dir", str(self.folder / "state"), "--bpf-root", str(self.bpf)),
            *("--cgroup-root", str(self.cgroup), "--kube-proxy-replacement"),
            *("--api-socket", str(self.socket), "--map-entries", "1024"),
            *more,
        ]

    def configure(self, cluster: str, etcd: Etcd) -> None:
        (self.remotes / cluster).write_text(f"endpoints:\n- {etcd.url}\n")

    def run(self, *words: str) -> str:
        """A command in the namespace; its output."""
        command = ["nsenter", f"--net=/run/netns/{self.name}", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def write(self, etcd: Etcd, ops: Sequence[PutOp | DeleteOp]) -> None:
        """Commit operations from a process in the namespace."""
        subprocess.run(
            [
                *("nsenter", f"--net=/run/netns/{self.name}"),
                *(sys.executable, "-m", "tests.support.agent_process", etcd.url),
            ],
            input=msgspec.msgpack.encode([_row(op) for op in ops]),
            check=True,
            env={"PYTHONPATH": str(Path(__file__).parents[2])},
        )

    @contextmanager
    def etcd(self) -> Iterator[Etcd]:
        with running_etcd(launcher=["nsenter", f"--net=/run/netns/{self.name}"]) as server:
            yield server

    def ask(self, path: str) -> Any:
        """GET from the agent, decoded when it is JSON; ``ConnectionError``: not yet."""
        connection = _UnixConnection(self.socket)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read().decode()
            if answer.status == http.client.SERVICE_UNAVAILABLE:
                raise ConnectionError(body)
        finally:
            connection.close()
        if answer.headers.get_content_type() == "application/json":
            return json.loads(body)
        return body


class AgentProcess:
    """A started ``clustermesh-agent``."""

    def __init__(self, place: Place, arguments: Sequence[str]) -> None:
        self.place = place
        self.log = place.folder / "agent.log"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL"),
                    *("nsenter", f"--net=/run/netns/{place.name}"),
                    *(sys.executable, "-W", "error", "-m", "agent.main", *arguments),
                ],
                stdout=log,
                stderr=log,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout=20)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def words(self) -> str:
        return self.log.read_text()

    def until(self, holds: Callable[[], bool], seconds: float = 30) -> None:
        """Wait for something that the process brings about."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if holds():
                    return
            except (OSError, http.client.HTTPException) as error:
                last: object = error
            else:
                last = "not yet"
            assert self._process.poll() is None, f"the agent ended:\n{self.words()}"
            assert time.monotonic() < deadline, f"{last}\n{self.words()}"
            time.sleep(0.02)

    def until_ready(self, seconds: float = 30) -> None:
        self.until(lambda: self.place.ask("/readyz") == "Ready", seconds)


@contextmanager
def place(folder: Path) -> Iterator[Place]:
    """A node with an underlay device, forwarding, a BPF file system and a control group."""
    name = f"cm-test-agent-{os.getpid()}"
    with netns(name), private_bpffs(folder / "bpf") as bpf, child_cgroup(name) as cgroup:
        made = Place(name, folder, bpf, cgroup)
        made.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "far0")
        for device in ("far0", "eth0"):
            made.run("ip", "link", "set", device, "up", "addrgenmode", "none")
        made.run("ip", "addr", "add", f"{NODE_IP}/24", "dev", "eth0")
        made.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        yield made


@contextmanager
def agent(
    where: Place, arguments: Sequence[str], *, patience: float = 30
) -> Iterator[AgentProcess]:
    """The process, ready within ``patience`` seconds; gone afterwards, whatever happened."""
    process = AgentProcess(where, arguments)
    try:
        process.until_ready(patience)
        yield process
    finally:
        process.kill()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(str(self._path))


# --- what clusters say -----------------------------------------------------------------------


def own_cluster(services: Mapping[str, Sequence[str]]) -> list[PutOp | DeleteOp]:
    """The own cluster, complete: one node, and global services by name with their backends."""
    ops = _cluster("home", 1, NODE_IP, overlay="10.1.0.1")
    for at, (name, backends) in enumerate(services.items()):
        service = LocalService(
            namespace="shop",
            name=name,
            frontends=(Frontend(address=f"10.96.0.{at + 10}", port=80, name="http"),),
            backends=tuple(
                LocalBackend(address=it, ports=(NamedPort(name="http", port=8080),))
                for it in backends
            ),
            is_global=True,
            shared=True,
        )
        ops.append(PutOp(local.key_of(service), local.encode(service)))
    return [*ops, PutOp(local.SYNCED, b"now")]


def remote_cluster(
    cluster: str, number: int, services: Mapping[str, Sequence[str]]
) -> list[PutOp | DeleteOp]:
    """A remote cluster, complete: one node, one pod, and services by name with their backends."""
    ops = _cluster(cluster, number, f"192.0.2.{number}", overlay=f"10.{number}.0.1")
    for name, backends in services.items():
        service = ClusterService(
            cluster=cluster,
            namespace="shop",
            name=name,
            frontends={f"10.{number}.96.1": {"http": Port("TCP", 80)}},
            backends={it: {"http": Port("TCP", 8080)} for it in backends},
            include_external=True,
            shared=True,
            cluster_id=number,
        )
        ops.append(PutOp(keys.key_of(cluster, service), keys.encode(service)))
    return ops


def _cluster(cluster: str, number: int, node_ip: str, *, overlay: str) -> list[PutOp | DeleteOp]:
    node = Node(
        name="node-a",
        cluster=cluster,
        addresses=(NodeAddress("InternalIP", node_ip), NodeAddress("CiliumInternalIP", overlay)),
        ipv4_alloc_cidr=Cidr.of(f"10.{number}.0.0/24"),
        cluster_id=number,
    )
    identity = (number << 16) + 9
    facts: list[keys.Fact] = [
        node,
        Identity(identity, f"k8s:app=cart;k8s:io.cilium.k8s.policy.cluster={cluster};"),
        IPEntry(ip=f"10.{number}.0.9", host_ip=node_ip, id=identity),
    ]
    config = ClusterConfig(number, Capabilities(synced_canaries=True, max_connected_clusters=255))
    return [
        PutOp(keys.cluster_config(cluster), gojson.encode(config)),
        *(PutOp(keys.key_of(cluster, fact), keys.encode(fact)) for fact in facts),
        *(PutOp(keys.canary(kind, Layout.STATE, cluster), b"now") for kind in KINDS),
        PutOp(keys.HEARTBEAT, b"now"),
    ]


def _row(op: PutOp | DeleteOp) -> tuple[str, bytes | None]:
    return op.key, op.value if isinstance(op, PutOp) else None


async def _commit(url: str, rows: list[tuple[str, bytes | None]]) -> None:
    ops = [DeleteOp(key) if value is None else PutOp(key, value) for key, value in rows]
    async with open_etcd(EtcdConfig.of(url)) as store:
        for start in range(0, len(ops), 100):
            await store.commit(ops[start : start + 100])


if __name__ == "__main__":  # ``Place.write`` runs this file inside the namespace
    decoded = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=list[tuple[str, bytes | None]])
    asyncio.run(_commit(sys.argv[1], decoded))
