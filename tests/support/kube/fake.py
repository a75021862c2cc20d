"""The test API server as a ``KubeServer``: TLS, tokens, client certificates."""

import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

from tests.support.kube.certs import Authority
from tests.support.kube.kubeserver import (
    ACCOUNT,
    ACCOUNT_TOKEN,
    ADMIN_TOKEN,
    READER,
    READER_TOKEN,
)
from tests.support.kube.rbac import ADMIN, User
from tests.support.kube.server import TestApi
from tests.support.kube.store import Store


class FakeKube:
    """Wraps the test API server; ``api`` gives its faults and options."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority()
        self.api = TestApi(
            tls=_tls(self.authority, folder),
            users={
                ADMIN_TOKEN: ADMIN,
                READER_TOKEN: User(READER),
                ACCOUNT_TOKEN: User(ACCOUNT),
            },
            store=_furnished(),
        )

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.api.port}"

    @property
    def offers_watch_list(self) -> bool:
        return self.api.options.watch_list

    async def start(self) -> None:
        await self.api.start()

    async def stop(self) -> None:
        await self.api.stop()

    async def lose_history(self) -> None:
        self.api.store.forget_history()
        self.api.cut()


@contextlib.asynccontextmanager
async def fake_kube(folder: Path) -> AsyncIterator[FakeKube]:
    """The test API server, not yet started."""
    yield FakeKube(folder)


def _furnished() -> Store:
    """A new cluster has a namespace."""
    store = Store()
    meta = {"name": "default", "uid": "default", "resourceVersion": "1"}
    store.objects["namespaces"] = {("", "default"): {"metadata": meta}}
    return store


def _tls(authority: Authority, folder: Path) -> ssl.SSLContext:
    pair = authority.server()
    path = folder / "test-api-server.pem"
    path.write_text(pair.certificate + pair.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    context.load_verify_locations(cadata=authority.pem)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context
