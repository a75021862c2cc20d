"""A real kube-apiserver with its etcd as a ``KubeServer``, from the envtest binaries."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import urllib.request
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.kube.certs import Authority, service_account_key
from tests.support.kube.kubeserver import ADMIN_TOKEN, READER, READER_TOKEN
from tests.support.kube.rbac import MASTERS

PATIENCE = 120.0


@dataclass(frozen=True)
class Assets:
    """Paths of the two programs."""

    apiserver: Path
    etcd: Path


def assets(env: Mapping[str, str] = os.environ) -> Assets | None:
    """The programs that the envtest variables name; None when they name none."""
    folder = env.get("KUBEBUILDER_ASSETS", "")
    apiserver = env.get("TEST_ASSET_KUBE_APISERVER") or (folder and f"{folder}/kube-apiserver")
    etcd = env.get("TEST_ASSET_ETCD") or (folder and f"{folder}/etcd")
    return Assets(Path(apiserver), Path(etcd)) if apiserver and etcd else None


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
            f"--data-dir={self._folder / 'etcd'}",
            f"--listen-client-urls={self._etcd_url}",
            f"--advertise-client-urls={self._etcd_url}",
            f"--listen-peer-urls={self._peer_url}",
            "--unsafe-no-fsync",
        )
        await _answers(f"{self._etcd_url}/health", None)

    async def _start_apiserver(self) -> None:
        pair = self.authority.server()
        ca = self._write("ca.crt", self.authority.pem)
        account_key = self._folder / "service-account.key"
        if not account_key.exists():
            self._write("service-account.key", service_account_key())
        tokens = f'{ADMIN_TOKEN},admin,admin,"{MASTERS}"\n{READER_TOKEN},{READER},{READER}\n'
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
            f"--token-auth-file={self._write('tokens.csv', tokens)}",
            f"--service-account-key-file={account_key}",
            f"--service-account-signing-key-file={account_key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/12",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",
            "--endpoint-reconciler-type=none",
            "--allow-privileged=true",
        )
        context = ssl.create_default_context(cadata=self.authority.pem)
        await _answers(f"{self.url}/readyz", context)
        await _answers(f"{self.url}/api/v1/namespaces/default", context)

    def _write(self, name: str, text: str) -> Path:
        path = self._folder / name
        path.write_text(text)
        path.chmod(0o600)
        return path

    async def _spawn(self, program: Path, *arguments: str) -> asyncio.subprocess.Process:
        log = (self._folder / f"{program.name}.log").open("ab")
        with log:
            return await asyncio.create_subprocess_exec(
                program, *arguments, stdout=log, stderr=log, start_new_session=True
            )

    async def _etcd_call(self, path: str, body: dict[str, str]) -> dict[str, dict[str, str]]:
        request = _request(self._etcd_url + path, json.dumps(body).encode())
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


async def _answers(url: str, context: ssl.SSLContext | None) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE
    while True:
        request = _request(url)
        try:
            await asyncio.to_thread(_read, request, context)
        except OSError as error:
            if loop.time() > deadline:
                raise AssertionError(f"{url} does not answer: {error}") from error
            await asyncio.sleep(0.2)
        else:
            return


def _request(url: str, body: bytes | None = None) -> urllib.request.Request:
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    return urllib.request.Request(url, body, headers)  # noqa: S310 - our own servers


def _read(request: urllib.request.Request, context: ssl.SSLContext | None) -> bytes:
    with urllib.request.urlopen(request, timeout=10, context=context) as answer:  # noqa: S310
        body: bytes = answer.read()
        return body


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
