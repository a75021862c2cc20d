"""Whatever dies, connections go on; and who comes back writes nothing that is already right."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.world import World, eventually

# Written by the data path itself, through shared memory, or by measurements: they change without
# any fact that does.
LIVE = {"metrics", "reverse_sk", "affinity", "state", "events", "propagation"}
WRITES = re.compile(r"BPF_(MAP_(UPDATE|DELETE)_(ELEM|BATCH)|LINK_UPDATE|PROG_ATTACH|OBJ_PIN)\b")


def kernel_objects(mesh: World, cluster: str, node: str) -> dict[str, object]:
    """Every pinned object's id, and what the maps hold that only an agent writes: by bpftool."""
    seen: dict[str, object] = {}
    for pin in mesh.pins(cluster, node):
        for kind in ("map", "prog", "link"):
            try:
                shown = mesh.bpftool(kind, "show", "pinned", str(pin))
            except subprocess.CalledProcessError:
                continue
            seen[f"{kind} {pin.name}"] = shown["id"]
            live = any(word in pin.name for word in LIVE)
            if kind == "map" and not live:
                dump = mesh.bpftool("map", "dump", "pinned", str(pin))
                seen[f"content of {pin.name}"] = sorted(json.dumps(entry) for entry in dump)
            break
    return seen


@pytest.mark.parametrize(
    "victims",
    [
        ["cluster-b/etcd"],
        ["cluster-b/apiserver"],
        ["cluster-a/node-1/agent"],
        ["cluster-b/etcd", "cluster-b/apiserver"],
        ["cluster-a/etcd", "cluster-a/apiserver"],
    ],
    ids="+".join,
)
def test_running_and_new_connections_do_not_notice(mesh: World, victims):
    client = mesh.pod("cluster-a", "client")
    server = mesh.pod("cluster-b", "rebel-base")
    service = mesh.service_ip("cluster-a", "rebel-base")
    with (
        mesh.going_on("hold", client, "tcp", server.ips[0], "8080") as held,
        mesh.going_on("knock", client, "tcp", service, "80", "5") as knocked,
    ):
        for victim in victims:
            mesh.lab("kill", victim)
        answers = mesh.clusters(client, service, count=100)
    assert set(answers) == {"cluster-a", "cluster-b"}, answers
    assert held["result"]["errors"] == []
    assert held["result"]["answered"] > 0
    seen = Counter(answer.get("error", "answered") for answer in knocked["result"])
    assert set(seen) == {"answered"}, seen


def test_the_double_failure_changes_nothing_and_a_restart_writes_nothing(mesh: World, tmp_path):
    client = mesh.pod("cluster-a", "client")
    service = mesh.service_ip("cluster-a", "rebel-base")
    before = kernel_objects(mesh, "cluster-a", "node-1")
    assert sum(name.startswith("link") for name in before) >= 3, sorted(before)
    mesh.lab("kill", "cluster-b/etcd", "cluster-b/apiserver", "cluster-a/node-1/agent")
    assert set(mesh.clusters(client, service, count=100)) == {"cluster-a", "cluster-b"}

    trace = traced_restart(mesh, "cluster-a/node-1/agent", tmp_path)

    assert kernel_objects(mesh, "cluster-a", "node-1") == before
    assert [line for line in trace.splitlines() if WRITES.search(line)] == []
    assert set(mesh.clusters(client, service, count=100)) == {"cluster-a", "cluster-b"}
    mesh.healthy()
    assert kernel_objects(mesh, "cluster-a", "node-1") == before


def test_what_came_just_before_the_double_failure_is_not_lost(mesh: World, tmp_path):
    """Newer than the checkpoint: the maps themselves remember it."""
    client = mesh.pod("cluster-a", "client")
    service = mesh.service_ip("cluster-a", "rebel-base")

    def remote_pods() -> set[str]:
        answers = mesh.ask(client, service, count=60)
        return {answer["pod"] for answer in answers if answer.get("cluster") == "cluster-b"}

    mesh.lab("scale", "cluster-b/rebel-base", "3")
    try:
        eventually("the third pod answers", lambda: len(remote_pods()) == 3)
        before = kernel_objects(mesh, "cluster-a", "node-1")
        mesh.lab("kill", "cluster-b/etcd", "cluster-b/apiserver", "cluster-a/node-1/agent")
        trace = traced_restart(mesh, "cluster-a/node-1/agent", tmp_path)
        assert kernel_objects(mesh, "cluster-a", "node-1") == before
        assert [line for line in trace.splitlines() if WRITES.search(line)] == []
        assert len(remote_pods()) == 3
    finally:
        mesh.lab("restart")
        mesh.lab("scale", "cluster-b/rebel-base", "2")


def test_after_the_double_failure_a_local_change_keeps_the_remote_backends(mesh: World):
    client = mesh.pod("cluster-a", "client")
    service = mesh.service_ip("cluster-a", "rebel-base")
    mesh.lab("kill", "cluster-b/etcd", "cluster-b/apiserver", "cluster-a/node-1/agent")
    mesh.lab("restart", "cluster-a/node-1/agent", "--no-wait")
    mesh.lab("scale", "cluster-a/rebel-base", "3")
    try:

        def local_pods() -> set[str]:
            answers = mesh.ask(client, service, count=60)
            told = {a.get("cluster") or str(a) for a in answers}
            assert told == {"cluster-a", "cluster-b"}, told
            return {a["pod"] for a in answers if a["cluster"] == "cluster-a"}

        eventually("the new local pod answers", lambda: len(local_pods()) == 3)
    finally:
        mesh.lab("scale", "cluster-a/rebel-base", "2")


def test_every_python_process_dies_and_traffic_goes_on(mesh: World):
    client = mesh.pod("cluster-a", "client")
    service = mesh.service_ip("cluster-a", "rebel-base")
    mesh.lab("kill", "--all-agents", "cluster-a/apiserver", "cluster-b/apiserver", "cluster-b/etcd")
    answers = mesh.clusters(client, service, count=100)
    assert set(answers) == {"cluster-a", "cluster-b"}, answers
    shown = mesh.meshctl("bpf", "lb", "list", "--node", "cluster-a/node-1").stdout
    assert service in shown, "maps can be read while the agent is dead"


def test_before_the_first_sync_a_connection_passes_untouched(mesh: World):
    """A fresh node whose own etcd does not answer: what served a service address still does."""
    client = mesh.pod("cluster-a", "client")
    service = mesh.service_ip("cluster-a", "rebel-base")
    mesh.lab("kill", "cluster-a/etcd", "cluster-a/node-1/agent")
    forget(mesh, "cluster-a", "node-1")
    server = mesh.pod("cluster-a", "rebel-base")
    rule = f"ip daddr {service} tcp dport 80 dnat to {server.ips[0]}:8080"
    nft = "table ip cm_kube_proxy { chain pre { type nat hook prerouting priority -100; %s; }; }"
    subprocess.run(mesh.on_node("cluster-a", "node-1", "nft", nft % rule), check=True)
    try:
        mesh.lab("restart", "cluster-a/node-1/agent", "--no-wait")
        eventually("the agent attached its programs", lambda: mesh.pins("cluster-a", "node-1"))
        answers = mesh.clusters(client, service, count=20)
        assert answers == {"cluster-a": 20}, answers
        mesh.lab("restart", "cluster-a/etcd")
        eventually(
            "both clusters answer after the first sync",
            lambda: set(mesh.clusters(client, service)) == {"cluster-a", "cluster-b"},
        )
    finally:
        remove = mesh.on_node("cluster-a", "node-1", "nft", "delete table ip cm_kube_proxy")
        subprocess.run(remove, check=True)


def forget(mesh: World, cluster: str, node: str) -> None:
    """Make the node as if no agent had ever run there."""
    agent = mesh.paths.node(cluster, node)
    flags = ("--bpf-root", str(mesh.paths.bpf(cluster, node)), "--state-dir", str(agent / "state"))
    command = (sys.executable, "-P", "-m", "agent.main", "cleanup", *flags)
    subprocess.run(mesh.on_node(cluster, node, *command), check=True, timeout=60)
    assert mesh.pins(cluster, node) == []


def traced_restart(mesh: World, target: str, where: Path) -> str:
    """Start the agent under strace until it has read its own cluster; its calls of bpf(2)."""
    trace = where / "bpf.trace"
    strace = f"strace -f -qq -e trace=bpf -o {trace}"
    mesh.lab("restart", target, "--no-wait", "--wrapper", strace)
    name = target.removesuffix("/agent")

    def settled() -> bool:
        agent = mesh.json("status", check=False)["agents"][name]
        return bool(agent) and bool(agent["own"]["ready"])

    eventually("the traced agent has read its own cluster", settled)
    mesh.lab("kill", target, "--signal", "TERM")
    eventually("it stopped", lambda: mesh.json("status", check=False)["agents"][name] is None)
    mesh.lab("restart", target, "--no-wait")
    return trace.read_text()
