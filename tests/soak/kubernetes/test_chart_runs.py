"""Installed by its contexts alone: connected, asked, run, and parted again."""

import os
import subprocess
import tarfile
from collections.abc import Iterator

import pytest

from clustermesh.lab.processes import LAUNCHER
from clustermesh.lab.topology import ETCD_PORT
from tests.e2e import checks
from tests.soak.kubernetes.installed import CLUSTERS, MARKS, Chart, Cluster, install, made, ready

pytestmark = MARKS


@pytest.fixture(scope="module", params=["direct", "kvstoremesh"])
def chart(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Chart]:
    """Installed, and its pods running; each cluster with an authority of its own."""
    with made(tmp_path_factory.mktemp("chart")) as found:
        install(found, f"--set=kvstoremesh.enabled={request.param == 'kvstoremesh'}".lower())
        yield found


def test_every_pod_becomes_ready(chart: Chart) -> None:
    ready(chart)


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


def test_every_question_is_answered_by_contexts_alone(chart: Chart) -> None:
    """Agents listen on their nodes' loopback, the chart's default: they are asked in their pods."""
    plan = chart.json("plan")
    codes = {(it["code"], it["result"]) for it in plan["findings"]}
    assert {("AGENTS", "ok"), ("UDP", "ok"), ("ETCD_AUTHORISED", "ok")} <= codes, plan
    assert not plan["changes"]
    nodes = {f"{cluster}/{node}" for cluster in CLUSTERS for node in ("node-1", "node-2")}
    diagnoses = chart.json("troubleshoot")["diagnoses"]
    assert {f"{it['cluster']}/{it['node']}" for it in diagnoses} == nodes
    assert not [it for one in diagnoses for it in one["findings"] if it["result"] == "failed"]
    assert chart.json("explain", "service", "default/rebel-base")["nodes"].keys() == nodes
    pods = [chart.world.pod(CLUSTERS[0], "client"), chart.world.pod(CLUSTERS[1], "rebel-base")]
    chart.meshctl("trace", *(f"{it.cluster}/default/{it.name}" for it in pods))
    assert chart.json("verify")["ok"]
    assert chart.json("audit").keys() == nodes
    for name in ("ipcache", "lb", "tunnel", "ct"):
        ours = chart.json("bpf", name, "list")
        assert ours == chart.world.json("bpf", name, "list"), "as read on this machine"
        assert ours.keys() == nodes
    archive = chart.folder / "dump.tar.gz"
    chart.meshctl("sysdump", "--file", str(archive))
    with tarfile.open(archive) as tar:
        names = {it.name.partition("/")[2] for it in tar}
    places = ["clusters/{}/nodes/{}/services.json".format(*it.split("/")) for it in nodes]
    places += [f"clusters/{it}/kvstore/cilium.ndjson" for it in CLUSTERS]
    places += [f"clusters/{it}/logs/clustermesh-agent-node-1-0/agent.log" for it in CLUSTERS]
    assert set(places) <= names, names


def test_a_right_that_is_missing_is_named(chart: Chart) -> None:
    reader = chart.of_reader()
    status = chart.json("status", code=3, config=reader)
    assert "no right to get pods/exec" in (chart.folder / "errors").read_text()
    assert not any(status["agents"].values())
    reader = chart.of_reader("pods/exec")
    assert all(chart.json("status", config=reader)["agents"].values())


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
    return len(found.stdout.split()) == len(cluster.kubelets)


def test_a_disconnected_cluster_is_drained(chart: Chart) -> None:
    for it in chart.json("disconnect", *CLUSTERS)["nodes"]:
        assert it["why"] == "0 addresses and 0 backends left", it
    for name in CLUSTERS:
        chart.until(
            f"{name} is alone", lambda name=name: checks.answering(chart.world, name) == {name}
        )
