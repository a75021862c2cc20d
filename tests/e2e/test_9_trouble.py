"""Plan and troubleshoot in a real mesh: each accident is provoked and its cause is named."""

import datetime
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from clustermesh.pki import Authority
from tests.e2e.world import World, eventually
from tests.support.provoked import provokes, witnessed

PEERS = ("cluster-a", "cluster-b")
NODE = ("--node", "cluster-a/node-1", "--cluster", "cluster-b")


def failures(mesh: World, *arguments: str) -> dict[str, dict]:
    """The failed findings of a command, by code."""
    done = mesh.meshctl(*arguments, "-o", "json", check=False)
    told = json.loads(done.stdout)
    rows = told.get("findings") or [f for one in told["diagnoses"] for f in one["findings"]]
    witnessed(row["code"] for row in rows)
    failed = {row["code"]: row for row in rows if row["result"] == "failed"}
    assert bool(failed) is (done.returncode == 3), done.stderr
    assert all(row["fix"] and row["seen"] for row in failed.values())
    return failed


def plan(mesh: World) -> dict[str, dict]:
    return failures(mesh, "plan", *PEERS)


def troubles(mesh: World) -> dict[str, dict]:
    return failures(mesh, "troubleshoot", *NODE)


@contextmanager
def changed(path: Path, content: bytes) -> Iterator[None]:
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


@provokes(
    "APISERVER", "AGENTS", "IDENTITY", "MAX_CLUSTERS", "VERSION", "CLOCKS", "KERNEL", "RANGES",
    "TUNNEL", "MTU", "UDP", "PLAINTEXT", "CA", "ETCD_AUTHORISED",
    "FILE", "CLIENT_CERT", "DNS", "TCP", "TLS",
    "CONFIG", "HEARTBEAT", "CANARIES", "VALUES", "SYNCED",
)  # fmt: skip
def test_a_healthy_mesh_passes_every_check(mesh: World):
    assert plan(mesh) == {}
    assert troubles(mesh) == {}
    text = mesh.meshctl("plan", *PEERS).stdout
    assert "nothing to change" in text
    assert "ETCD_AUTHORISED" in text
    assert "works" in mesh.meshctl("troubleshoot").stdout


@provokes("ETCD_REACHED")
def test_a_plan_for_clusters_that_are_apart_says_what_would_change_and_changes_nothing(
    mesh: World,
):
    mesh.meshctl("disconnect", *PEERS)
    folder = mesh.paths.remotes("cluster-a")
    before = sorted(folder.iterdir())
    text = mesh.meshctl("connect", *PEERS, "--dry-run").stdout
    assert "cluster-a: follows cluster-b" in text
    assert "ETCD_REACHED" in text
    witnessed(text.split())
    assert sorted(folder.iterdir()) == before


@provokes("TCP_REFUSED", "APISERVER_NOT_READY")
def test_a_dead_etcd_is_a_port_where_nobody_listens(mesh: World):
    mesh.lab("kill", "cluster-b/etcd")
    assert list(troubles(mesh)) == ["TCP_REFUSED"]
    eventually(
        "the apiserver has noticed",
        lambda: {"TCP_REFUSED", "APISERVER_NOT_READY"} <= plan(mesh).keys(),
    )


@provokes("APISERVER_SILENT", "AGENT_SILENT")
def test_dead_processes_are_named(mesh: World):
    mesh.lab("kill", "cluster-b/apiserver", "cluster-a/node-2/agent")
    assert {"APISERVER_SILENT", "AGENT_SILENT"} <= plan(mesh).keys()


@provokes("TLS_WRONG_CA")
def test_a_wrong_authority_is_named_as_such(mesh: World, tmp_path: Path):
    stranger = Authority.create("stranger").certificate
    trusted = mesh.paths.remotes("cluster-a") / "cluster-b.etcd-client-ca.crt"
    with changed(trusted, stranger):
        assert list(troubles(mesh)) == ["TLS_WRONG_CA"]


@provokes("CLIENT_CERT_EXPIRED")
def test_an_expired_client_certificate_is_named_as_such(mesh: World):
    pki = mesh.paths.pki("cluster-b")
    authority = Authority.load(pki / "ca.crt", pki / "ca.key")
    long_ago = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=400)
    expired = authority.client("remote-cluster-a", now=long_ago)
    folder = mesh.paths.remotes("cluster-a")
    with (
        changed(folder / "cluster-b.etcd-client.crt", expired.certificate),
        changed(folder / "cluster-b.etcd-client.key", expired.key),
    ):
        assert "CLIENT_CERT_EXPIRED" in troubles(mesh)


@provokes("TLS_REFUSED")
def test_a_client_of_another_authority_is_refused(mesh: World):
    other = Authority.create("other").client("remote-cluster-a")
    folder = mesh.paths.remotes("cluster-a")
    with (
        changed(folder / "cluster-b.etcd-client.crt", other.certificate),
        changed(folder / "cluster-b.etcd-client.key", other.key),
    ):
        assert list(troubles(mesh)) == ["TLS_REFUSED"]


@provokes("ETCD_DENIED")
def test_a_user_without_rights_is_told_from_one_who_cannot_connect(mesh: World):
    users = mesh.paths.users("cluster-b")
    with changed(users, yaml.safe_dump({"users": []}).encode()):
        found = eventually("the user is gone", lambda: troubles(mesh))
    assert list(found) == ["ETCD_DENIED"]
    eventually("the user is back", lambda: troubles(mesh) == {})


@provokes("DNS_FAILED")
def test_an_endpoint_of_another_cluster_is_named(mesh: World):
    path = mesh.paths.remotes("cluster-a") / "cluster-b"
    document = yaml.safe_load(path.read_bytes())
    document["endpoints"] = ["https://nowhere.invalid:2379"]
    with changed(path, yaml.safe_dump(document).encode()):
        assert list(troubles(mesh)) == ["DNS_FAILED"]


@provokes("CANARY_MISSING")
def test_a_missing_canary_is_named(mesh: World):
    key = "cilium/synced/cluster-b/cilium/state/nodes/v1"
    mesh.lab("kill", "cluster-b/apiserver")
    value = mesh.etcd("cluster-b", "get", "--print-value-only", key).strip()
    assert value
    mesh.etcd("cluster-b", "del", key)
    assert "CANARY_MISSING" in troubles(mesh)


@provokes("POD_CIDR_OVERLAP", "NOT_USED")
def test_overlapping_pod_ranges_are_named(mesh: World):
    node = next(
        path
        for path in mesh.paths.manifests("cluster-b").glob("*.yaml")
        if yaml.safe_load(path.read_text())["kind"] == "Node"
    )
    document = yaml.safe_load(node.read_text())
    text = yaml.safe_dump(document).replace("10.2.", "10.1.")
    with changed(node, text.encode()):
        found = eventually("the overlap is seen", lambda: plan(mesh))
        eventually("one cluster is held out", lambda: "NOT_USED" in troubles(mesh))
    assert "POD_CIDR_OVERLAP" in found
    eventually("it is gone", lambda: plan(mesh) == {})


@contextmanager
def firewalled(mesh: World, cluster: str, rule: str) -> Iterator[None]:
    """Every node of a cluster drops what the rule says on its way in."""
    nodes = ("node-1", "node-2")

    def nft(node: str, command: str, *, check: bool = True) -> None:
        subprocess.run(mesh.on_node(cluster, node, "nft", command), check=check)

    try:
        for node in nodes:
            nft(node, "add table inet firewall")
            nft(node, "add chain inet firewall in { type filter hook input priority 0; }")
            nft(node, f"add rule inet firewall in {rule} drop")
        yield
    finally:
        for node in nodes:
            nft(node, "delete table inet firewall", check=False)  # which there may not be yet


def test_a_connection_that_no_packet_passes_is_taken_back(mesh: World):
    mesh.meshctl("disconnect", *PEERS)
    before = sorted(mesh.paths.remotes("cluster-a").iterdir())
    with firewalled(mesh, "cluster-b", "udp dport 8472"):
        done = mesh.meshctl("connect", *PEERS, "--force", "-o", "json", check=False)
    told = json.loads(done.stdout)
    assert done.returncode == 3, done.stderr
    assert "no packet comes back through the overlay" in done.stderr
    assert sorted(told["undone"]) == sorted(told["changes"])
    assert all(node["done"] for node in told["nodes"])
    assert sorted(mesh.paths.remotes("cluster-a").iterdir()) == before


def test_a_connection_that_stood_is_kept_when_no_packet_passes(mesh: World):
    before = {path: path.read_bytes() for path in mesh.paths.remotes("cluster-a").iterdir()}
    with firewalled(mesh, "cluster-b", "udp dport 8472"):
        done = mesh.meshctl("connect", *PEERS, "-o", "json", check=False)
    assert done.returncode == 3
    assert json.loads(done.stdout)["undone"] == []
    assert {p: p.read_bytes() for p in mesh.paths.remotes("cluster-a").iterdir()} == before


def test_connecting_again_during_an_outage_changes_nothing(mesh: World):
    mesh.lab("kill", "cluster-b/etcd", "cluster-b/apiserver")
    before = {path: path.stat().st_mtime_ns for path in mesh.paths.remotes("cluster-a").iterdir()}
    done = mesh.meshctl("connect", *PEERS, "--timeout", "1", "-o", "json", check=False)
    told = json.loads(done.stdout)
    assert done.returncode == 3
    assert told["changes"] == told["undone"] == []
    after = {path: path.stat().st_mtime_ns for path in mesh.paths.remotes("cluster-a").iterdir()}
    assert after == before


@provokes("UDP_BLOCKED")
def test_a_blocked_overlay_port_is_named_before_anything_is_connected(mesh: World):
    mesh.meshctl("disconnect", *PEERS)
    with firewalled(mesh, "cluster-b", "udp dport 8472"):
        found = plan(mesh)
        done = mesh.meshctl("connect", *PEERS, check=False)
    assert list(found) == ["UDP_BLOCKED"]
    assert "cluster-b/node-" in found["UDP_BLOCKED"]["where"]
    assert done.returncode == 3
    assert "nothing was changed" in done.stderr
    assert "UDP_BLOCKED" in done.stderr
    assert plan(mesh) == {}


@provokes("MTU_PATH")
def test_a_narrow_link_is_named(mesh: World):
    link = ("ip", "link", "set", "eth0", "mtu")
    try:
        subprocess.run(mesh.on_node("cluster-b", "node-1", *link, "1400"), check=True)
        assert "MTU_PATH" in plan(mesh)
    finally:
        subprocess.run(mesh.on_node("cluster-b", "node-1", *link, "1500"), check=True)


@provokes("CANARY_STALE", "VALUE_CORRUPT")
def test_a_stale_canary_and_a_corrupt_value_are_named(mesh: World):
    mesh.lab("kill", "cluster-b/apiserver")
    mesh.etcd("cluster-b", "put", "cilium/.heartbeat", "2020-01-01T00:00:00Z")
    mesh.etcd("cluster-b", "put", "cilium/state/nodes/v1/cluster-b/node-1", "{")
    found = troubles(mesh)
    assert {"CANARY_STALE", "VALUE_CORRUPT"} <= found.keys()
    assert found["VALUE_CORRUPT"]["where"] == "cilium/state/nodes/v1/cluster-b/node-1"
