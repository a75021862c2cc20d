"""A node that runs pods: volumes from the API server, containers as processes, both kept up.

What it leaves out is what the chart does not ask for: images, limits, probes and restarts.
"""

import base64
import contextlib
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from clustermesh.lab.processes import LAUNCHER
from tests.support.kube.certs import Authority
from tests.support.kube.kubeserver import ADMIN_TOKEN
from tests.support.kubelet import container, endpoint, pods, volumes
from tests.support.kubelet.pods import ACCOUNT, Container, Manifest
from tests.support.kubelet.volumes import Data


class Api:
    """The API server, asked as its administrator."""

    def __init__(self, url: str, ca: str) -> None:
        self.url = url
        self.ca = ca
        tls = urllib.request.HTTPSHandler(context=ssl.create_default_context(cadata=ca))
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), tls)

    def call(self, method: str, path: str, body: object = None) -> Manifest:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        request = urllib.request.Request(  # noqa: S310 - our own server
            self.url + path,
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {ADMIN_TOKEN}", "Content-Type": kind},
            method=method,
        )
        try:
            with self._opener.open(request, timeout=30) as answer:
                found: Manifest = json.load(answer)
                return found
        except urllib.error.HTTPError as error:
            error.add_note(error.read().decode()[:1000])
            raise

    def data(self, kind: str, space: str, name: str) -> Data | None:
        try:
            found = self.call("GET", f"/api/v1/namespaces/{space}/{kind.lower()}s/{name}")
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise
        read = base64.b64decode if kind == "secret" else str.encode
        return {key: read(value) for key, value in (found.get("data") or {}).items()}

    def token(self, space: str, account: str) -> str:
        """A bound token, as a pod gets it."""
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 3600},
        }
        path = f"/api/v1/namespaces/{space}/serviceaccounts/{account}/token"
        token: str = self.call("POST", path, body)["status"]["token"]
        return token


class Place(NamedTuple):
    """Where a node's processes live on this machine. ``disk`` says what is at its hostPaths."""

    netns: str
    cgroup: Path
    disk: Mapping[str, Path]
    hosts: Mapping[str, str]


class Kubelet:
    """Of one node. ``api_seen`` is the API server's address for its pods."""

    ip = ""

    def __init__(self, api: Api, folder: Path, place: Place, api_seen: tuple[str, int]) -> None:
        self._api = api
        self._folder = folder
        self._place = place
        self._api_seen = api_seen
        self._running: dict[str, tuple[Manifest, list[subprocess.Popen[bytes]]]] = {}
        self._endpoint: subprocess.Popen[bytes] | None = None

    def run(self, pod: Manifest) -> Manifest:
        """Tell the API server of the pod, make its volumes and start its containers."""
        meta = pod["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods"
        made = self._api.call("POST", path, pod)
        made = self._api.call("PATCH", f"{path}/{meta['name']}/status", {"status": pod["status"]})
        self._volumes(made)
        started: list[subprocess.Popen[bytes]] = []
        self._running[meta["name"]] = (made, started)
        for each in pods.containers(made, self._api_seen):
            started += [self._start(made, each)]
        self._tell_endpoint()
        return made

    def serve(self, authority: Authority) -> None:
        """Begin to start programs in the containers for the API server (``endpoint``)."""
        pair = authority.server()
        files = {"kubelet.crt": pair.certificate, "kubelet.key": pair.key}
        for name, text in files.items():
            (self._folder / name).write_text(text)
        self._tell_endpoint()
        with (self._folder / "endpoint.log").open("ab") as log:
            self._endpoint = subprocess.Popen(
                [
                    *(*LAUNCHER, self._place.netns, str(self._place.cgroup)),
                    *("setpriv", "--pdeathsig", "KILL"),
                    *("env", f"PYTHONPATH={pods.PROJECT}", sys.executable, "-P"),
                    *("-m", endpoint.__name__, self.ip, str(self._containers)),
                    *(str(self._folder / name) for name in files),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def _containers(self) -> Path:
        return self._folder / "containers.json"

    def _tell_endpoint(self) -> None:
        """Which containers there are."""
        found = {}
        for pod, started in self._running.values():
            where = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            for each, process in zip(pods.containers(pod, self._api_seen), started, strict=False):
                log = self._log(pod["metadata"]["name"], each.name)
                about = {"pid": process.pid, "user": each.user, "env": each.env}
                found[f"{where}/{each.name}"] = {**about, "log": str(log)}
        fresh = self._containers.with_suffix(".new")
        fresh.write_text(json.dumps(found))
        fresh.rename(self._containers)

    def sync(self) -> bool:
        """Bring what Secrets and ConfigMaps hold now into the pods' volumes; False: nothing new."""
        changed = [self._volumes(pod) for pod, _ in self._running.values()]
        return any(changed)

    def kill(self, name: str) -> None:
        """SIGKILL, and everything of the pod is gone."""
        pod, started = self._running.pop(name)
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(self._home(pod))
        space = pod["metadata"]["namespace"]
        path = f"/api/v1/namespaces/{space}/pods/{name}?gracePeriodSeconds=0"
        self._api.call("DELETE", path)
        self._tell_endpoint()

    def ended(self) -> list[str]:
        """Containers that no longer run, with their last words."""
        return [
            f"{name}: {self._log(name, process.args[-1]).read_text()[-600:]}"
            for name, (_, started) in self._running.items()
            for process in started
            if process.poll() is not None
        ]

    def close(self) -> None:
        for name in list(self._running):
            with contextlib.suppress(OSError):
                self.kill(name)
        if self._endpoint is not None:
            self._endpoint.kill()
            self._endpoint.wait()

    def _home(self, pod: Manifest) -> Path:
        return self._folder / pod["metadata"]["name"]

    def _log(self, pod: str, what: str) -> Path:
        return self._folder / f"{pod}.{Path(what).stem}.log"

    def _read(self, pod: Manifest) -> volumes.Read:
        return lambda kind, name: self._api.data(kind, pod["metadata"]["namespace"], name)

    def _volumes(self, pod: Manifest) -> bool:
        """Each in a folder of the pod's home, made when it is not there."""
        group = pod["spec"].get("securityContext", {}).get("fsGroup", 0)
        changed = False
        for volume in pod["spec"].get("volumes", ()):
            folder = self._home(pod) / volume["name"]
            folder.mkdir(parents=True, exist_ok=True)
            found = volumes.content(volume, self._read(pod))
            if found is not None:
                changed |= volumes.write(folder, *found, group)
            elif "emptyDir" in volume:
                os.chown(folder, 0, group)
                folder.chmod(0o2777)
        return changed

    def _source(self, pod: Manifest, name: str) -> str:
        volume = next(it for it in pod["spec"]["volumes"] if it["name"] == name)
        if "hostPath" not in volume:
            return str(self._home(pod) / name)
        path = self._place.disk[volume["hostPath"]["path"]]
        if volume["hostPath"].get("type") == "DirectoryOrCreate":
            path.mkdir(parents=True, exist_ok=True)
        assert path.is_dir(), path
        return str(path)

    def _start(self, pod: Manifest, each: Container) -> subprocess.Popen[bytes]:
        name = pod["metadata"]["name"]
        files, mounts = pods.image()
        lines = ["127.0.0.1 localhost", *(f"{ip} {host}" for host, ip in self._place.hosts.items())]
        files["/etc/hosts"] = ("\n".join(lines) + "\n", 0o644)
        mounts += [(path, self._source(pod, volume)) for path, volume in each.mounts]
        if pod["spec"].get("automountServiceAccountToken"):
            mounts.append((ACCOUNT, str(self._account(pod))))
        scratch = self._home(pod) / f"root-{each.name}"
        scratch.mkdir()
        spec = self._home(pod) / f"{each.name}.json"
        spec.write_text(json.dumps({
            "scratch": str(scratch), "files": files, "mounts": mounts, "user": each.user,
            "read-only": each.read_only, "argv": each.argv, "env": each.env,
        }))  # fmt: skip
        with self._log(name, spec.name).open("ab") as log:
            return subprocess.Popen(
                [
                    *(*LAUNCHER, self._place.netns, str(self._place.cgroup)),
                    *("unshare", "--mount"),
                    *(sys.executable, "-I", "-S", container.__file__, str(spec)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _account(self, pod: Manifest) -> Path:
        folder = self._home(pod) / "account"
        space, account = pod["metadata"]["namespace"], pod["spec"]["serviceAccountName"]
        folder.mkdir(exist_ok=True)
        files = {
            "token": self._api.token(space, account).encode(),
            "ca.crt": self._api.ca.encode(),
            "namespace": space.encode(),
        }
        volumes.write(folder, files, 0o644, pod["spec"]["securityContext"]["fsGroup"])
        return folder


@contextlib.contextmanager
def kubelet(api: Api, folder: Path, place: Place, api_seen: tuple[str, int]) -> Iterator[Kubelet]:
    node = Kubelet(api, folder, place, api_seen)
    try:
        yield node
    finally:
        node.close()
