"""Two test API servers in a thread, furnished as members of a mesh: one of ours, one of Cilium."""

import asyncio
import base64
import copy
import json
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clustermesh.pki import Authority
from tests.support.kube.fake import FakeKube
from tests.support.kube.kubeserver import ADMIN_TOKEN
from tests.support.kube.podparts import PodParts

SPACE = "kube-system"
Manifest = dict[str, Any]
CONTAINER = {"clustermesh-apiserver": "apiserver", "clustermesh-agent": "agent"}


class Member:
    """One API server; ``put`` and ``get`` go straight into its store."""

    def __init__(self, name: str, folder: Path, loop: asyncio.AbstractEventLoop) -> None:
        self.name = name
        self.kube = FakeKube(folder)
        self.authority = Authority.create(name)
        self._loop = loop

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def put(self, kind: str, name: str, body: Manifest, *, version: str = "v1") -> None:
        """Create or replace; cluster-wide kinds have the namespace "" in ``body``."""
        store, catalog = self.kube.api.store, self.kube.api.catalog
        found = catalog.of({"apiVersion": version, "kind": kind})
        space = SPACE if found.namespaced else ""
        where = (body.get("metadata", {}).get("namespace", space), name)
        manifest = {"apiVersion": version, "kind": kind, **body}
        manifest["metadata"] = {"name": name, **body.get("metadata", {})}
        if where in store.objects.get(found.title, {}):
            self.run(store.delete(found, where, {}))
        self.run(store.create(found, where, manifest))

    def data(self, kind: str, name: str) -> dict[str, bytes] | None:
        """What a Secret or ConfigMap holds; None: there is none."""
        found = self.kube.api.store.objects.get(f"{kind.lower()}s", {}).get((SPACE, name))
        if found is None:
            return None
        read = base64.b64decode if kind == "Secret" else str.encode
        return {key: read(value) for key, value in (found.get("data") or {}).items()}

    def everything(self) -> dict[str, Any]:
        """A copy of all that the server holds."""
        return copy.deepcopy(self.kube.api.store.objects)

    def clear(self) -> None:
        """As a new cluster."""
        self.kube.api.store.objects.clear()
        self.kube.api.pods = PodParts()
        self.put("Namespace", SPACE, {})

    def secret(self, name: str, **pieces: bytes) -> None:
        data = {key: base64.b64encode(value).decode() for key, value in pieces.items()}
        self.put("Secret", name, {"data": data})

    def ca(self, name: str, folder: Path) -> None:
        self.authority.write(folder / "ca.crt", folder / "ca.key")
        pieces = {it: (folder / it).read_bytes() for it in ("ca.crt", "ca.key")}
        self.secret(name, **pieces)

    def exposed(self, ip: str) -> None:
        ports = [{"port": 2379, "nodePort": 32379}]
        status = {"loadBalancer": {"ingress": [{"ip": ip}]}}
        service = {"spec": {"type": "LoadBalancer", "ports": ports}, "status": status}
        self.put("Service", "clustermesh-apiserver", service)

    def node(self, ip: str, cidr: str) -> None:
        addresses = [{"type": "InternalIP", "address": ip}]
        body = {"spec": {"podCIDRs": [cidr]}, "status": {"addresses": addresses}}
        self.put("Node", f"node-{ip}", body)

    def control_plane(self, name: str, number: int, *more: str) -> None:
        """As our chart has it."""
        users = "--cluster-users-config-path=/var/lib/cilium/etcd-config/users.yaml"
        source = "--source=kubernetes"
        self.deployment(f"--cluster-name={name}", f"--cluster-id={number}", source, users, *more)

    def deployment(self, *arguments: str) -> None:
        pod = {"spec": {"containers": [{"name": "apiserver", "args": list(arguments)}]}}
        body = {"spec": {"template": pod}}
        self.put("Deployment", "clustermesh-apiserver", body, version="apps/v1")

    def pod(self, app: str, name: str, node: str, *arguments: str) -> None:
        container = {"name": CONTAINER[app], "args": list(arguments)}
        self.put("Pod", name, {
            "metadata": {"labels": {"k8s-app": app}},
            "spec": {"nodeName": node, "containers": [container]},
            "status": {"phase": "Running"},
        })  # fmt: skip


@contextmanager
def members(folder: Path) -> Iterator[tuple[Path, Member, Member]]:
    """A kubeconfig with the contexts ``here`` and ``there``, and the two servers."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    made = [Member(name, _made(folder / name), loop) for name in ("here", "there")]
    try:
        for each in made:
            each.run(each.kube.start())
        yield _kubeconfig(folder, made), made[0], made[1]
    finally:
        for each in made:
            each.run(each.kube.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _kubeconfig(folder: Path, made: list[Member]) -> Path:
    path = folder / "kubeconfig"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "users": [{"name": "admin", "user": {"token": ADMIN_TOKEN}}],
        "clusters": [
            {
                "name": each.name,
                "cluster": {
                    "server": each.kube.url,
                    "certificate-authority-data": base64.b64encode(
                        each.kube.authority.pem.encode()
                    ).decode(),
                },
            }
            for each in made
        ],
        "contexts": [
            {"name": each.name, "context": {"cluster": each.name, "user": "admin"}} for each in made
        ],
        "current-context": "here",
    }
    path.write_text(json.dumps(document))
    return path
