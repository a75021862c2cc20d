"""The chart, installed by Helm on two real API servers and run as a kubelet runs it.

Its pods' containers are processes with the root, user, volumes and service account that the
manifests give them; nodes and pods' networks are a lab's; the API servers reach the kubelets.
Needs ``TEST_ASSET_KUBE_APISERVER`` and ``helm`` (docs/operations.md).
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from clustermesh.lab.processes import LAUNCHER
from clustermesh.lab.topology import ETCD_PORT, Addresses
from tests.e2e.own import standing
from tests.e2e.world import MESHCTL, World, eventually
from tests.support.kube.kubeserver import ADMIN_TOKEN, READER, READER_TOKEN
from tests.support.kube.real import assets
from tests.support.kubelet import endpoint, pods
from tests.support.kubelet.inside import InsideKube, running
from tests.support.kubelet.kubelet import Api, Kubelet, Place

NAME = "soakkube"
SPACE = "kube-system"
CLUSTERS = ("cluster-a", "cluster-b")
CHART = Path(__file__).parents[3] / "helm" / "clustermesh"
SYNC = 0.3

MARKS = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        assets() is None or shutil.which("helm") is None,
        reason="needs TEST_ASSET_KUBE_APISERVER and helm on PATH",
    ),
]


class Cluster:
    """One cluster: its API server, and the kubelets of its control plane and nodes."""

    def __init__(self, world: World, name: str, kube: InsideKube, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.api = Api(kube.url, kube.authority.pem)
        self.authority = kube.authority
        addresses = Addresses(world.state().topology)
        self.address = addresses.control_plane(name)
        spec = world.state().topology.cluster(name)
        self.kubelets: dict[str, Kubelet] = {}
        service = {f"clustermesh-apiserver.{SPACE}.svc": self.address}
        for number, node in enumerate(("control-plane", *spec.node_names())):
            control = node == "control-plane"
            paths = world.paths
            place = Place(
                paths.control_plane_netns(name) if control else paths.node_netns(name, node),
                paths.control_plane_cgroup(world.cgroup, name)
                if control
                else paths.node_cgroup(world.cgroup, name, node),
                {
                    "/sys/fs/bpf": paths.bpf(name, node),
                    "/sys/fs/cgroup": paths.node_cgroup(world.cgroup, name, node),
                    "/run/clustermesh": paths.node(name, node),
                    "/var/lib/clustermesh": folder / f"{node}-state",
                },
                service,
            )
            (folder / node).mkdir()
            kubelet = Kubelet(self.api, folder / node, place, ("127.0.0.1", kube.port))
            kubelet.ip = self.address if control else addresses.node(name, number)
            self.kubelets[node] = kubelet

    def kubeconfig(self) -> dict[str, Any]:
        """Entries for one context."""
        (self.folder / "api.crt").write_text(self.api.ca)
        cluster = {"server": self.api.url, "certificate-authority": str(self.folder / "api.crt")}
        return {
            "clusters": [{"name": self.name, "cluster": cluster}],
            "users": [{"name": self.name, "user": {"token": ADMIN_TOKEN}}],
            "contexts": [{"name": self.name, "context": {"cluster": self.name, "user": self.name}}],
        }

    def get(self, group: str, kind: str, name: str) -> Any:
        return self.api.call("GET", f"/{group}/namespaces/{SPACE}/{kind}/{name}")

    def start(self, workload: str, kind: str, *, control: bool, turn: int = 0) -> None:
        """What the controllers do: a pod on each node it belongs to."""
        found = self.get("apis/apps/v1", kind, workload)
        for node, kubelet in self.kubelets.items():
            if (node == "control-plane") == control:
                name = f"{workload}-{node}-{turn}"
                kubelet.run(pods.bound(found, name=name, node=node, ip=kubelet.ip))

    def exposed(self) -> None:
        """What a cloud and a controller do for a Service of type LoadBalancer."""
        status = {"status": {"loadBalancer": {"ingress": [{"ip": self.address}]}}}
        path = f"/api/v1/namespaces/{SPACE}/services/clustermesh-apiserver/status"
        self.api.call("PATCH", path, status)
        self._apply({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "clustermesh-apiserver-1",
                "namespace": SPACE,
                "labels": {"kubernetes.io/service-name": "clustermesh-apiserver"},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": [self.address], "conditions": {"ready": True}}],
            "ports": [{"name": "etcd", "protocol": "TCP", "port": ETCD_PORT}],
        })  # fmt: skip

    def grant(self, user: str, rules: list[dict[str, Any]]) -> None:
        """Rights in the whole cluster, over those that were granted before."""
        top, group = "/apis/rbac.authorization.k8s.io/v1", "rbac.authorization.k8s.io"
        name = f"of-{user}-{len(rules[0]['resources'])}"
        meta = {"apiVersion": f"{group}/v1", "metadata": {"name": name}}
        role = {"apiGroup": group, "kind": "ClusterRole", "name": name}
        subjects = [{"apiGroup": group, "kind": "User", "name": user}]
        body = {**meta, "kind": "ClusterRole", "rules": rules}
        self.api.call("POST", f"{top}/clusterroles", body)
        body = {**meta, "kind": "ClusterRoleBinding", "roleRef": role, "subjects": subjects}
        self.api.call("POST", f"{top}/clusterrolebindings", body)

    def populate(self, world: World) -> None:
        """The lab's objects, as Kubernetes' own components would have made them."""
        documents = [
            yaml.safe_load(path.read_text())
            for path in world.paths.manifests(self.name).glob("*.yaml")
        ]
        for document in sorted(documents, key=lambda it: it["kind"] != "Namespace"):
            self._apply(document)

    def serve(self) -> None:
        """Nodes with kubelets that the API server reaches."""
        for name, kubelet in self.kubelets.items():
            kubelet.serve(self.authority)
            addresses = [{"type": "InternalIP", "address": kubelet.ip}]
            endpoints = {"kubeletEndpoint": {"Port": endpoint.PORT}}
            status = {"status": {"addresses": addresses, "daemonEndpoints": endpoints}}
            if name == "control-plane":
                node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
                self._apply({**node, **status})
            else:
                self.api.call("PATCH", f"/api/v1/nodes/{name}/status", status)

    def _apply(self, document: dict[str, Any]) -> None:
        kind, meta = document["kind"], document["metadata"]
        if kind == "Namespace" and meta["name"] == "default":
            return
        group = "/api/v1" if document["apiVersion"] == "v1" else f"/apis/{document['apiVersion']}"
        path = f"{group}/namespaces/{meta['namespace']}" if "namespace" in meta else group
        path = f"{path}/{kind.lower()}s"
        status = document.pop("status", None)
        for container in document.get("spec", {}).get("containers", ()):
            container.setdefault("image", "echo")
        self.api.call("POST", path, document)
        if status:
            self.api.call("PATCH", f"{path}/{meta['name']}/status", {"status": status})


class Chart:
    """Both clusters and the tools that an operator has."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.folder = folder
        self.clusters: list[Cluster] = []
        self.config = folder / "kubeconfig"

    def write_kubeconfig(self) -> None:
        document: dict[str, Any] = {"apiVersion": "v1", "kind": "Config"}
        for cluster in self.clusters:
            for key, entries in cluster.kubeconfig().items():
                document.setdefault(key, []).extend(entries)
        self.config.write_text(json.dumps(document))
        self.config.chmod(0o600)

    def run(self, *argv: str, code: int = 0, config: Path | None = None) -> str:
        """What a tool says, while the kubelets go on with their work."""
        env = {**os.environ, "KUBECONFIG": str(config or self.config), "HOME": str(self.folder)}
        out, errors = self.folder / "output", self.folder / "errors"
        with out.open("w") as told, errors.open("w") as complaints:
            tool = subprocess.Popen(argv, stdout=told, stderr=complaints, env=env)
        while tool.poll() is None:
            self.sync()
            time.sleep(SYNC)
        said = out.read_text()
        assert tool.returncode == code, f"{argv}: {tool.returncode}\n{said}\n{errors.read_text()}"
        return said

    def meshctl(self, *arguments: str, code: int = 0, config: Path | None = None) -> str:
        """By the contexts of both clusters."""
        return self.run(*MESHCTL, *arguments, *contexts(*CLUSTERS), code=code, config=config)

    def json(self, *arguments: str, code: int = 0, config: Path | None = None) -> Any:
        return json.loads(self.meshctl(*arguments, "-o", "json", code=code, config=config))

    def at(self, name: str, *arguments: str) -> str:
        """meshctl of one cluster's operator, whose machine is in that cluster."""
        netns = self.world.paths.control_plane_netns(name)
        return self.run(*LAUNCHER, netns, "-", *MESHCTL, *arguments, *contexts(name))

    def of_reader(self, *resources: str) -> Path:
        """A kubeconfig of somebody who may read what meshctl reads, and ``resources``."""
        kinds = ["configmaps", "deployments", "networkpolicies", "nodes", "pods", "secrets"]
        rule = {"apiGroups": ["*"], "verbs": ["get", "list"]}
        rules = [{**rule, "resources": [*kinds, "services", *resources]}]
        for cluster in self.clusters:
            cluster.grant(READER, rules)
        path = self.folder / "reader"
        path.write_text(self.config.read_text().replace(ADMIN_TOKEN, READER_TOKEN))
        path.chmod(0o600)
        return path

    def sync(self) -> None:
        for cluster in self.clusters:
            for kubelet in cluster.kubelets.values():
                kubelet.sync()
                assert not kubelet.ended(), kubelet.ended()

    def until(self, what: str, met: Callable[[], object]) -> None:
        def tried() -> object:
            self.sync()
            return met()

        eventually(what, tried)


def contexts(*names: str) -> list[str]:
    return [part for name in names for part in ("--context", name)]


def _bare(world: World) -> None:
    """Only the lab's nodes and pods are left: no process of ours, nothing that one has made."""
    for process in list(world.state().processes):
        if process.rpartition("/")[2] in ("etcd", "apiserver", "agent"):
            world.lab("kill", process)
    for cluster in CLUSTERS:
        for node in ("node-1", "node-2"):
            bpf = world.paths.bpf(cluster, node)
            argv = (*MESHCTL[:-1], "agent.main", "cleanup")
            places = (
                "--bpf-root",
                str(bpf),
                "--state-dir",
                str(world.paths.node(cluster, node) / "state"),
            )
            subprocess.run(world.on_node(cluster, node, *argv, *places), check=True)


@contextmanager
def made(folder: Path) -> Iterator[Chart]:
    """Two clusters with a kubelet on each node, and nothing installed."""
    found = assets()
    assert found is not None
    with standing(NAME) as world, ExitStack() as stack:
        _bare(world)
        chart = Chart(world, folder)
        for number, name in enumerate(CLUSTERS, 1):
            home = folder / name
            home.mkdir()
            netns = world.paths.control_plane_netns(name)
            ranges = f"--service-cluster-ip-range=10.{100 + number}.0.0/16"
            kube = stack.enter_context(running(InsideKube(found, home, netns, ranges)))
            cluster = Cluster(world, name, kube, home)
            for kubelet in cluster.kubelets.values():
                stack.callback(kubelet.close)
            cluster.populate(world)
            cluster.serve()
            chart.clusters.append(cluster)
        chart.write_kubeconfig()
        yield chart


def install(chart: Chart, *flags: str) -> None:
    """With the chart's defaults but for what a lab's nodes ask for."""
    for cluster, number in zip(chart.clusters, (1, 2), strict=True):
        values = {
            "cluster.name": cluster.name,
            "cluster.id": number,
            "agent.kubeProxyReplacement": "true",
            "agent.etcd.ips": f"{{{cluster.address}}}",
            "apiserver.propagationInterval": 1,
        }
        given = [*(f"--set={key}={value}" for key, value in values.items()), *flags]
        context = ("--kube-context", cluster.name, "--namespace", SPACE)
        chart.run("helm", "install", "clustermesh", str(CHART), *context, *given)
        cluster.exposed()
        cluster.start("clustermesh-apiserver", "deployments", control=True)
        cluster.start("clustermesh-agent", "daemonsets", control=False)


def ready(chart: Chart) -> None:
    for cluster in chart.clusters:
        for node in ("node-1", "node-2"):
            socket = chart.world.paths.agent_socket(cluster.name, node)
            argv = ("curl", "-sf", "--unix-socket", str(socket), "http://agent/readyz")
            chart.until(
                f"the agent of {cluster.name}/{node} is ready",
                lambda argv=argv: subprocess.run(argv, capture_output=True).returncode == 0,
            )
