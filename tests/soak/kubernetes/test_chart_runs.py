"""The chart, installed by Helm on two real API servers and run as a kubelet runs it.

Its pods' containers are processes with the root, user, volumes and service account that the
manifests give them; nodes and pods' networks are a lab's. ``meshctl`` connects the clusters by
their contexts. Needs ``TEST_ASSET_KUBE_APISERVER`` and ``helm`` (docs/operations.md).
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
from tests.e2e import checks
from tests.e2e.own import standing
from tests.e2e.world import MESHCTL, World, eventually
from tests.support.kube.kubeserver import ADMIN_TOKEN
from tests.support.kube.real import assets
from tests.support.kubelet import endpoint, pods
from tests.support.kubelet.inside import InsideKube, running
from tests.support.kubelet.kubelet import Api, Kubelet, Place

NAME = "soakkube"
SPACE = "kube-system"
CLUSTERS = ("cluster-a", "cluster-b")
CHART = Path(__file__).parents[3] / "helm" / "clustermesh"
SYNC = 0.3

pytestmark = [
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

    def run(self, *argv: str, code: int = 0) -> str:
        """A tool, while the kubelets go on with their work."""
        env = {**os.environ, "KUBECONFIG": str(self.config), "HOME": str(self.folder)}
        out = self.folder / "output"
        with out.open("w") as file:
            tool = subprocess.Popen(argv, stdout=file, stderr=subprocess.STDOUT, env=env)
        while tool.poll() is None:
            self.sync()
            time.sleep(SYNC)
        said = out.read_text()
        assert tool.returncode == code, f"{argv}: {tool.returncode}\n{said}"
        return said

    def meshctl(self, *arguments: str, code: int = 0) -> str:
        contexts = [part for name in CLUSTERS for part in ("--context", name)]
        return self.run(*MESHCTL, *arguments, *contexts, code=code)

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
def _made(folder: Path) -> Iterator[Chart]:
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


@pytest.fixture(scope="module", params=["direct", "kvstoremesh"])
def chart(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Chart]:
    """Installed, and its pods running; each cluster with an authority of its own."""
    with _made(tmp_path_factory.mktemp("chart")) as made:
        for cluster, number in zip(made.clusters, (1, 2), strict=True):
            values = {
                "cluster.name": cluster.name,
                "cluster.id": number,
                "agent.kubeProxyReplacement": "true",
                "agent.etcd.ips": f"{{{cluster.address}}}",
                "apiserver.propagationInterval": 1,
                "kvstoremesh.enabled": str(request.param == "kvstoremesh").lower(),
            }
            flags = [f"--set={key}={value}" for key, value in values.items()]
            context = ("--kube-context", cluster.name, "--namespace", SPACE)
            made.run("helm", "install", "clustermesh", str(CHART), *context, *flags)
            cluster.exposed()
            cluster.start("clustermesh-apiserver", "deployments", control=True)
            cluster.start("clustermesh-agent", "daemonsets", control=False)
        yield made


def test_every_pod_becomes_ready(chart: Chart) -> None:
    for cluster in chart.clusters:
        for node in ("node-1", "node-2"):
            socket = chart.world.paths.agent_socket(cluster.name, node)
            argv = ("curl", "-sf", "--unix-socket", str(socket), "http://agent/readyz")
            chart.until(
                f"the agent of {cluster.name}/{node} is ready",
                lambda argv=argv: subprocess.run(argv, capture_output=True).returncode == 0,
            )


def test_contexts_are_connected_and_pods_and_services_answer(chart: Chart) -> None:
    print(chart.meshctl("connect", *CLUSTERS))
    chart.until(
        "pods reach pods",
        lambda: all(
            answer.get("cluster") == there
            for here, there in (CLUSTERS, CLUSTERS[::-1])
            for answer in chart.world.ask(
                chart.world.pod(here, "client"),
                chart.world.pod(there, "rebel-base").ips[0],
                checks.PORT,
            )
        ),
    )
    checks.pods_reach_pods(chart.world)
    checks.services_answer(chart.world)
    chart.until("the maps are right", lambda: _audited(chart))
    print(chart.meshctl("status", "--wait", "--timeout", "60"))


def test_a_new_pod_of_the_control_plane_is_filled_and_nobody_notices(chart: Chart) -> None:
    """Its etcd was in memory: gone with the pod."""
    far = chart.clusters[1]
    client = chart.world.pod("cluster-a", "client")
    address = chart.world.service_ip("cluster-a", "rebel-base")
    far.kubelets["control-plane"].kill("clustermesh-apiserver-control-plane-0")
    answers = chart.world.clusters(client, address, count=100)
    assert set(answers) == checks.BOTH, answers
    far.start("clustermesh-apiserver", "deployments", control=True, turn=1)
    chart.until("its etcd holds the cluster again", lambda: _published(chart, far))
    answers = chart.world.clusters(client, address, count=100)
    assert set(answers) == checks.BOTH, answers
    chart.until("the maps are right", lambda: _audited(chart))


def _audited(chart: Chart) -> bool:
    reports = chart.world.json("audit", check=False)
    return all(not it["differences"] and not it["unaudited"] for it in reports.values())


def _published(chart: Chart, cluster: Cluster) -> bool:
    """Asked with etcdctl and the certificate that the agents have."""
    tls = cluster.folder / "node-1" / "clustermesh-agent-node-1-0" / "tls"
    argv = (
        *("etcdctl", "--endpoints", f"https://127.0.0.1:{ETCD_PORT}"),
        *("--cacert", str(tls / "ca.crt"), "--cert", str(tls / "tls.crt")),
        *("--key", str(tls / "tls.key"), "get", "--prefix", "--keys-only", "cilium/state/nodes/"),
    )
    netns = chart.world.paths.control_plane_netns(cluster.name)
    found = subprocess.run(
        (*LAUNCHER, netns, "-", *argv),
        capture_output=True, text=True, env={**os.environ, "ETCDCTL_API": "3"},
    )  # fmt: skip
    return len(found.stdout.split()) == 2


def test_a_disconnected_cluster_is_drained(chart: Chart) -> None:
    print(chart.meshctl("disconnect", *CLUSTERS))
    for name in CLUSTERS:
        chart.until(
            f"{name} is alone", lambda name=name: checks.answering(chart.world, name) == {name}
        )
