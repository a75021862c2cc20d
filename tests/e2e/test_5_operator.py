"""What the operator sees and does: status, maps, disconnecting, also when the peer is dead."""

import json
import subprocess

from tests.e2e.world import World, eventually


def answering(mesh: World, cluster: str = "cluster-a") -> set[str]:
    pod = mesh.pod(cluster, "client")
    return set(mesh.clusters(pod, mesh.service_ip(cluster, "rebel-base")))


def test_status_is_ready_and_says_so_per_node_and_remote_cluster(mesh: World):
    text = mesh.meshctl("status").stdout
    for word in ("cluster-a", "cluster-b", "node-1", "node-2"):
        assert word in text
    status = mesh.json("status")
    assert len(status["agents"]) == 4
    for agent in status["agents"].values():
        (remote,) = agent["remotes"]
        assert remote["ready"]
        assert remote["connected"]
        synced = remote["synced"]
        assert all(synced[kind] for kind in ("nodes", "services", "identities", "endpoints"))
        assert remote["num-nodes"] == 2
        assert remote["num-endpoints"] >= 4


def test_status_is_not_ready_while_a_peer_is_dead_and_exits_non_zero(mesh: World):
    mesh.lab("kill", "cluster-b/etcd")

    def failing() -> str:
        done = mesh.meshctl("status", check=False)
        return done.stdout + done.stderr if done.returncode != 0 else ""

    said = eventually("status says that cluster-b is unreachable", failing)
    assert "cluster-b" in said
    waited = mesh.meshctl("status", "--wait", "--timeout", "1", check=False)
    assert waited.returncode != 0
    mesh.lab("restart", "cluster-b/etcd")
    mesh.meshctl("status", "--wait", "--timeout", "60")


def test_the_maps_are_shown_as_the_kernel_holds_them(mesh: World):
    node = ("--node", "cluster-a/node-1")
    server = mesh.pod("cluster-b", "rebel-base")
    identity = mesh.identity_of(server)
    underlay = mesh.manifest("cluster-b", "Node", server.node_name)["status"]["addresses"]
    node_ip = next(each["address"] for each in underlay if each["type"] == "InternalIP")

    ipcache = mesh.meshctl("bpf", "ipcache", "list", *node).stdout
    assert "IP PREFIX/ADDRESS" in ipcache
    (row,) = (line for line in ipcache.splitlines() if f"{server.ips[0]}/32" in line)
    assert f"identity={identity} " in row
    assert f"tunnelendpoint={node_ip}," in row

    tunnel = mesh.meshctl("bpf", "tunnel", "list", *node).stdout
    assert f"{node_ip}:0" in tunnel

    service = mesh.service_ip("cluster-a", "rebel-base")
    lb = mesh.meshctl("bpf", "lb", "list", *node).stdout
    rows = [line for line in lb.splitlines() if f"{service}:80" in line and server.ips[0] in line]
    assert rows, lb


def test_the_maps_agree_with_what_bpftool_dumps(mesh: World):
    pin = next(p for p in mesh.pins("cluster-a", "node-1") if p.name == "cilium_ipcache")
    dump = mesh.bpftool("map", "dump", "pinned", str(pin))
    shown = mesh.json("bpf", "ipcache", "list", "--node", "cluster-a/node-1")
    shown = shown.get("cluster-a/node-1", shown)
    assert len(shown) == len(dump)


def test_services_nodes_and_identities_are_listed(mesh: World):
    node = ("--node", "cluster-a/node-1")
    services = mesh.meshctl("service", "list", *node).stdout
    assert mesh.service_ip("cluster-a", "rebel-base") in services
    assert mesh.pod("cluster-b", "rebel-base").ips[0] in services
    nodes = mesh.meshctl("node", "list", *node).stdout
    for name in ("cluster-a/node-1", "cluster-a/node-2", "cluster-b/node-1", "cluster-b/node-2"):
        assert name in nodes
    identity = mesh.identity_of(mesh.pod("cluster-b", "rebel-base"))
    assert str(identity) in mesh.meshctl("identity", "list", *node).stdout


def drained(mesh: World, cluster: str, node: str, other: str) -> bool:
    """Nothing of the other cluster is in the node's real ipcache."""
    pin = next(p for p in mesh.pins(cluster, node) if p.name == "cilium_ipcache")
    text = json.dumps(mesh.bpftool("map", "dump", "pinned", str(pin)))
    prefix = {"cluster-a": (10, 1), "cluster-b": (10, 2)}[other]
    word = ",".join(f'"0x{byte:02x}"' for byte in prefix).replace(",", ", ")
    return word not in text


def test_disconnect_drains_the_peer(mesh: World):
    assert answering(mesh) == {"cluster-a", "cluster-b"}
    mesh.meshctl("disconnect", "cluster-a", "cluster-b")
    assert answering(mesh) == {"cluster-a"}
    assert answering(mesh, "cluster-b") == {"cluster-b"}
    assert drained(mesh, "cluster-a", "node-1", "cluster-b")
    assert drained(mesh, "cluster-b", "node-2", "cluster-a")
    mesh.meshctl("disconnect", "cluster-a", "cluster-b")


def test_disconnect_drains_a_dead_peer(mesh: World):
    mesh.lab("kill", "cluster-b/etcd", "cluster-b/apiserver")
    assert answering(mesh) == {"cluster-a", "cluster-b"}
    mesh.meshctl("disconnect", "cluster-a", "cluster-b")
    assert answering(mesh) == {"cluster-a"}
    assert drained(mesh, "cluster-a", "node-2", "cluster-b")


def test_connecting_again_changes_nothing(mesh: World):
    before = mesh.paths.remotes("cluster-a")
    stamps = {path: path.stat().st_mtime_ns for path in before.iterdir()}
    mesh.meshctl("connect", "cluster-a", "cluster-b")
    assert {path: path.stat().st_mtime_ns for path in before.iterdir()} == stamps


def test_a_bad_manifest_is_named_and_harms_nothing(mesh: World):
    bad = mesh.paths.manifests("cluster-b") / "bad.yaml"
    bad.write_text("apiVersion: v1\nkind: Service\nmetadata: {name: 7}\nspec: {ports: hello}\n")
    try:

        def named() -> bool:
            return "bad.yaml" in json.dumps(mesh.json("status", check=False))

        eventually("the bad manifest is named in the status", named)
        assert answering(mesh) == {"cluster-a", "cluster-b"}
    finally:
        bad.unlink()


def test_a_command_runs_in_a_pod(mesh: World):
    pod = mesh.pod("cluster-a", "client")
    done = mesh.lab("exec", pod.target, "--", "ip", "-br", "address")
    assert pod.ips[0] in done.stdout


def test_stopping_a_process_takes_seconds_and_drains_nothing(mesh: World):
    mesh.lab("kill", "cluster-a/node-1/agent", "--signal", "TERM")
    target = mesh.state().processes["cluster-a/node-1/agent"]
    eventually("the agent is gone", lambda: not _alive(target.pid), deadline=20)
    assert answering(mesh) == {"cluster-a", "cluster-b"}


def _alive(pid: int) -> bool:
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return bool(shown.stdout.strip()) and not shown.stdout.startswith("Z")
