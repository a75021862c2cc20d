"""What the tests need of an API server, whether it is the test server or a real one."""

import base64
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tests.support.kube.admin import Admin
from tests.support.kube.certs import Authority

ADMIN_TOKEN = "admin-token"  # noqa: S105 - of test servers
READER_TOKEN = "reader-token"  # noqa: S105 - of test servers
READER = "reader"
ACCOUNT_TOKEN = "account-token"  # noqa: S105 - of test servers
ACCOUNT = "system:serviceaccount:kube-system:clustermesh-apiserver"
"""The chart's."""


class KubeServer(Protocol):
    """An API server with its state, which outlives stops."""

    url: str
    authority: Authority
    offers_watch_list: bool

    async def start(self) -> None:
        """Serve; returns when it answers."""
        ...

    async def stop(self) -> None:
        """Die at once, connections and all."""
        ...

    async def lose_history(self) -> None:
        """Make every revision seen so far too old to be watched from. May restart."""
        ...


@dataclass
class Kube:
    """A running server, an administrator's client, and kubeconfigs for its users."""

    server: KubeServer
    admin: Admin
    folder: Path

    def kubeconfig(self, name: str = "admin", *, url: str = "", **user: Any) -> Path:
        """A kubeconfig whose only user has these fields; by default the administrator.

        ``url`` is where the server is to be reached, if not directly.
        """
        path = self.folder / f"{name}.kubeconfig"
        ca = base64.b64encode(self.server.authority.pem.encode()).decode()
        cluster = {"server": url or self.server.url, "certificate-authority-data": ca}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": name, "user": user or {"token": ADMIN_TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": name}}],
            "current-context": "test",
        }
        path.write_text(json.dumps(document))  # JSON is YAML
        return path


class Opens(Protocol):
    """Makes one of the two kinds of server in a folder."""

    def __call__(self, folder: Path) -> AbstractAsyncContextManager[KubeServer]: ...


@contextlib.asynccontextmanager
async def running(opens: Opens, folder: Path) -> AsyncIterator[Kube]:
    """A server that answers, until the end of the block."""
    async with opens(folder) as server:
        await server.start()
        try:
            async with Admin(server.url, server.authority.pem, ADMIN_TOKEN) as admin:
                yield Kube(server, admin, folder)
        finally:
            await server.stop()
