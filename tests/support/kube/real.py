"""A real kube-apiserver with its etcd as a ``KubeServer``, from the envtest binaries."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import urllib.request
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.kube.admission import RANGES
from tests.support.kube.certs import Authority, service_account_key
from tests.support.kube.kubeserver import (
    ACCOUNT,
    ACCOUNT_TOKEN,
    ADMIN_TOKEN,
    READER,
    READER_TOKEN,
)
from tests.support.kube.rbac import MASTERS

PATIENCE = 120.0
TOKENS = f"""\
{ADMIN_TOKEN},admin,admin,"{MASTERS}"
{READER_TOKEN},{READER},{READER}
{ACCOUNT_TOKEN},{ACCOUNT},{ACCOUNT}
"""
PROBE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "probe"},
    "spec": {"ports": [{"port": 1}]},
}


@dataclass(frozen=True)
class Assets:
    """Paths of the two programs."""

    apiserver: Path
    etcd: Path


def assets(env: Mapping[str, str] = os.environ) -> Assets | None:
    """The programs that the envtest variables name; None when they name none.

    Without an etcd of their own there is the one on PATH. A variable that names a file that is not
    there is an error: tests on a real server must not be left out unnoticed.
    """
    folder = env.get("KUBEBUILDER_ASSETS", "")
    apiserver = env.get("TEST_ASSET_KUBE_APISERVER") or (folder and f"{folder}/kube-apiserver")
    if not apiserver:
        return None
    etcd = env.get("TEST_ASSET_ETCD") or f"{folder}/etcd"
    if not (folder or env.get("TEST_ASSET_ETCD")) or not _runs(etcd):
        etcd = shutil.which("etcd", path=env.get("PATH")) or etcd
    for path in (apiserver, etcd):
        if not _runs(path):
            raise RuntimeError(
                f"{path} is no program: KUBEBUILDER_ASSETS names a folder with kube-apiserver and "
                "etcd, TEST_ASSET_KUBE_APISERVER and TEST_ASSET_ETCD the programs"
            )
    return Assets(Path(apiserver), Path(etcd))


def _runs(path: str) -> bool:
    return os.access(path, os.X_OK) and not Path(path).is_dir()


class RealKube:
    """etcd runs until ``close``; the API server may be stopped and started."""

    offers_watch_list = False  # depends on the release: tests only rely on what always holds

    def __init__(self, found: Assets, folder: Path) -> None:
        self.authority = Authority()
        self._assets = found
        self._folder = folder
        self._port, self._etcd_port, peer = _free_ports(3)
        self._etcd_url = f"http://127.0.0.1:{self._etcd_port}"
        self._peer_url = f"http://127.0.0.1:{peer}"
        self._etcd: asyncio.subprocess.Process | None = None
        self._apiserver: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._port}"

    async def start(self) -> None:
        if self._etcd is None:
            await self._start_etcd()
        await self._start_apiserver()

    async def stop(self) -> None:
        await _kill(self._apiserver)
        self._apiserver = None

    async def close(self) -> None:
        await self.stop()
        await _kill(self._etcd)

    async def lose_history(self) -> None:
        """Compact the etcd, and start an API server whose cache knows nothing from before."""
        await self.stop()
        answer = await self._etcd_call("/v3/kv/range", {"key": "AA=="})
        await self._etcd_call("/v3/kv/compaction", {"revision": answer["header"]["revision"]})
        await self.start()

    async def _start_etcd(self) -> None:
        self._etcd = await self._spawn(
            self._assets.etcd,
            "--name=test",
            f"--data-dir={self._folder / 'kube-etcd'}",
            f"--listen-client-urls={self._etcd_url}",
            f"--advertise-client-urls={self._etcd_url}",
            f"--listen-peer-urls={self._peer_url}",
            f"--initial-advertise-peer-urls={self._peer_url}",
            f"--initial-cluster=test={self._peer_url}",
            *_without_fsync(self._assets.etcd),
        )
        await self._answers(self._etcd, f"{self._etcd_url}/health", None)

    async def _start_apiserver(self) -> None:
        pair = self.authority.server()
        ca = self._write("ca.crt", self.authority.pem)
        account_key = self._folder / "service-account.key"
        if not account_key.exists():
            self._write("service-account.key", service_account_key())
        self._apiserver = await self._spawn(
            self._assets.apiserver,
            f"--etcd-servers={self._etcd_url}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--anonymous-auth=false",
            f"--secure-port={self._port}",
            f"--cert-dir={self._folder}",
            f"--tls-cert-file={self._write('server.crt', pair.certificate)}",
            f"--tls-private-key-file={self._write('server.key', pair.key)}",
            f"--client-ca-file={ca}",
            f"--token-auth-file={self._write('tokens.csv', TOKENS)}",
            f"--service-account-key-file={account_key}",
            f"--service-account-signing-key-file={account_key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-cluster-ip-range={','.join(RANGES)}",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",
            "--endpoint-reconciler-type=none",
            "--allow-privileged=true",
        )
        context = ssl.create_default_context(cadata=self.authority.pem)
        for path in ("/readyz", "/api/v1/namespaces/default", "/api/v1/namespaces/kube-system"):
            await self._answers(self._apiserver, self.url + path, context)
        # Ready or not, it makes no Service before it knows its own ranges of addresses.
        path = "/api/v1/namespaces/default/services?dryRun=All"
        await self._answers(self._apiserver, self.url + path, context, json.dumps(PROBE).encode())

    async def _answers(
        self,
        process: asyncio.subprocess.Process,
        url: str,
        context: ssl.SSLContext | None,
        body: bytes | None = None,
    ) -> None:
        """Wait for a success. A process that ends is a failure at once, with what it said last."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE
        while True:
            try:
                await asyncio.to_thread(_read, _request(url, body), context)
            except OSError as error:
                if process.returncode is None and loop.time() < deadline:
                    await asyncio.sleep(0.2)
                    continue
                ended = "" if process.returncode is None else f", it ended ({process.returncode})"
                raise AssertionError(
                    f"{url} does not answer: {error}{ended}\n{self._last_words()}"
                ) from error
            else:
                return

    def _last_words(self) -> str:
        """The ends of both logs."""
        return "\n".join(
            f"{log.name}: {log.read_text(errors='replace')[-2000:]}"
            for log in sorted(self._folder.glob("*.log"))
        )

    def _write(self, name: str, text: str) -> Path:
        path = self._folder / name
        path.write_text(text)
        path.chmod(0o600)
        return path

    async def _spawn(self, program: Path, *arguments: str) -> asyncio.subprocess.Process:
        log = (self._folder / f"{program.name}.log").open("ab")
        with log:
            return await asyncio.create_subprocess_exec(
                *("setpriv", "--pdeathsig", "KILL"),
                *(program, *arguments),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def _etcd_call(self, path: str, body: dict[str, str]) -> dict[str, dict[str, str]]:
        url = self._etcd_url + path  # without a token: etcd would look for who has it
        request = urllib.request.Request(url, json.dumps(body).encode())  # noqa: S310
        answer = await asyncio.to_thread(_read, request, None)
        decoded: dict[str, dict[str, str]] = json.loads(answer)
        return decoded


@contextlib.asynccontextmanager
async def real_kube(folder: Path) -> AsyncIterator[RealKube]:
    """A real API server, not yet started; its processes are gone afterwards."""
    found = assets()
    if found is None:
        raise RuntimeError("KUBEBUILDER_ASSETS or TEST_ASSET_KUBE_APISERVER and TEST_ASSET_ETCD")
    kube = RealKube(found, folder)
    try:
        yield kube
    finally:
        await kube.close()


async def _kill(process: asyncio.subprocess.Process | None) -> None:
    if process is None or process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGKILL)
    await process.wait()


def _without_fsync(etcd: Path) -> tuple[str, ...]:
    """The flag that spares the disk, where this etcd has it (from 3.5 on)."""
    said = subprocess.run([etcd, "--help"], capture_output=True, text=True, check=False)
    flag = "--unsafe-no-fsync"
    return (flag,) if flag in said.stdout + said.stderr else ()


def _request(url: str, body: bytes | None = None) -> urllib.request.Request:
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}", "Content-Type": "application/json"}
    return urllib.request.Request(url, body, headers)  # noqa: S310 - our own servers


def _read(request: urllib.request.Request, context: ssl.SSLContext | None) -> bytes:
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if context is not None:
        handlers.append(urllib.request.HTTPSHandler(context=context))
    with urllib.request.build_opener(*handlers).open(request, timeout=10) as answer:
        body: bytes = answer.read()
        return body


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
