"""What the operator can see: the mesh as a whole, packets' ways, keys, checks, and one archive."""

import json
import os
import re
import signal
import subprocess
import tarfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

from tests.e2e.world import MESHCTL, World, eventually

NODE = "cluster-a/node-1"


def pods(mesh: World) -> tuple[Any, Any]:
    return mesh.pod("cluster-a", "client"), mesh.pod("cluster-b", "rebel-base")


def named(pod: Any) -> str:
    return f"{pod.cluster}/default/{pod.name}"


def pin(mesh: World, name: str) -> str:
    return str(next(p for p in mesh.pins("cluster-a", "node-1") if p.name == name))


# -- status ---------------------------------------------------------------------------------------


def test_status_measures_every_pair(mesh: World):
    def measured() -> dict[tuple[str, str], dict]:
        told = {(it["cluster"], it["remote"]): it for it in mesh.json("status")["pairs"]}
        known = all(it["p50"] is not None and it["samples"] > 3 for it in told.values())
        return told if known else {}

    pairs = eventually("propagation is measured between all", measured)

    def on_this_node() -> bool:  # one that has just started does not measure yet
        held = mesh.bpftool("map", "dump", "pinned", pin(mesh, "cm_propagation"))
        return len(held) == 2  # one of each cluster

    eventually("each cluster's probe is in the map", on_this_node)
    assert set(pairs) == {(a, b) for a in ("cluster-a", "cluster-b") for b in pairs and
                          ("cluster-a", "cluster-b")}  # fmt: skip
    for (one, other), pair in pairs.items():
        assert 0 <= pair["p50"] <= pair["p99"]
        assert pair["nodes"] == pair["ready"] == 2
        assert (pair["rtt"] is None) is (one == other)
    text = mesh.meshctl("status").stdout
    for word in ("PROPAGATION p50 / p99", "2 of 2", "CERTIFICATES", "NODES READY WITH"):
        assert word in text
    assert max(map(len, text.splitlines())) < 200
    socket = mesh.paths.agent_socket("cluster-a", "node-1")

    def told() -> bool:
        asked = subprocess.run(
            ["curl", "-s", "--unix-socket", str(socket), "http://x/metrics"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        figure = r'propagation_seconds\{.*target_cluster="cluster-b".*\} [\d.e-]+\n'
        return re.search(figure, asked) is not None

    eventually("it is a metric", told)


def test_what_is_wrong_is_told_once_with_the_next_step(mesh: World):
    mesh.lab("kill", "cluster-b/etcd")

    def told() -> list[dict]:
        found = json.loads(mesh.meshctl("status", "-o", "json", check=False).stdout)["wrong"]
        return [it for it in found if it["cluster"] == "cluster-a" and len(it["nodes"]) == 2]

    (one,) = eventually("both nodes say the same, told once", told)
    assert "cluster-b is not ready" in one["said"]
    assert one["next"].startswith("meshctl troubleshoot --node cluster-a/node-1")
    done = mesh.meshctl("status", "--no-nodes", check=False)
    assert done.returncode == 3
    assert f"next: {one['next']}" in done.stdout


def watched(mesh: World, *command: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*MESHCTL, *command, "-o", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "MESHCTL_MESH": str(mesh.paths.mesh)},
    )


def interrupted(watching: "subprocess.Popen[str]") -> None:
    watching.send_signal(signal.SIGINT)
    watching.communicate(timeout=30)
    assert watching.returncode == 130


def test_status_and_keys_are_watched_until_they_are_interrupted(mesh: World):
    status = watched(mesh, "status", "--watch", "--interval", "0.2")
    keys = watched(mesh, "kvstore", "watch", "cilium/state/")
    assert status.stdout is not None
    assert keys.stdout is not None
    seen = [json.loads(status.stdout.readline())["ready"] for _ in range(3)]
    interrupted(status)
    assert seen == [True] * 3
    clusters = set()
    while clusters != {"cluster-a", "cluster-b"}:  # each puts a probe every second
        told = json.loads(keys.stdout.readline())
        assert told["key"].startswith("cilium/state/")
        clusters.add(told["cluster"])
    interrupted(keys)


# -- lists and keys -------------------------------------------------------------------------------


def test_single_things_are_shown(mesh: World):
    client, server = pods(mesh)
    only = ("--node", NODE)
    assert server.ips[0] in mesh.meshctl("service", "show", "default/rebel-base", *only).stdout
    (node,) = mesh.json("node", "show", "cluster-b/node-1", *only)
    assert node["cluster"] == "cluster-b"
    identity = mesh.identity_of(server)
    assert "k8s:app=rebel-base" in mesh.meshctl("identity", "show", str(identity), *only).stdout
    (endpoint, *_) = mesh.json("endpoint", "show", named(server))
    assert endpoint["identity"] == identity
    assert "k8s:app=rebel-base" in endpoint["labels"]
    assert client.ips[0] in mesh.meshctl("endpoint", "list").stdout
    assert mesh.meshctl("identity", "show", "1", *only, check=False).returncode == 1


def test_keys_are_those_of_the_etcd_and_decoded(mesh: World):
    told = mesh.json("kvstore", "list", "cilium/", "--keys-only")
    for cluster, keys in told.items():
        etcd = mesh.etcd(cluster, "get", "--prefix", "--keys-only", "cilium/").split()
        assert set(keys) == set(etcd)
    _, server = pods(mesh)
    key = f"cilium/state/ip/v1/default/{server.ips[0]}"
    raw = mesh.meshctl("kvstore", "get", key, "--raw").stdout
    assert raw == mesh.etcd("cluster-b", "get", "--print-value-only", key).rstrip("\n")
    assert json.loads(raw)["ID"] == mesh.json("kvstore", "get", key)["cluster-b"]["value"]["ID"]
    assert '"K8sPodName": "rebel-base-1"' in mesh.meshctl("kvstore", "get", key).stdout


# -- a packet's way -------------------------------------------------------------------------------


def test_a_pods_way_to_a_pod_and_back_is_that_of_the_maps(mesh: World):
    client, server = pods(mesh)
    told = mesh.json("trace", named(client), named(server))
    assert all(not hop["wrong"] for hop in told["hops"])
    assert {hop["way"] for hop in told["hops"]} == {"there", "back"}
    identity = mesh.identity_of(client)
    (underlay,) = [it for it in told["hops"] if (it["way"], it["what"]) == ("there", "underlay")]
    assert f"VNI {identity} " in underlay["found"]
    with mesh.capture() as lines:
        mesh.ask(client, server.ips[0], 8080)
    assert any(f"vni {identity}" in line for line in lines)
    text = mesh.meshctl("trace", named(client), named(server)).stdout
    for word in ("The way there:", "The way back:", "cm_vxlan table 8472", "ipcache, destination"):
        assert word in text


def test_a_service_is_traced_to_a_backend(mesh: World):
    client, _ = pods(mesh)
    told = mesh.json("trace", named(client), "default/rebel-base")
    backends = [it["found"] for it in told["hops"] if it["what"] == "backend"]
    assert len(backends) == 4
    assert told["target"]["cluster"] == "cluster-b"
    assert "Which backend:" in mesh.meshctl("trace", named(client), "default/rebel-base").stdout
    done = mesh.meshctl("trace", named(client), "default/empty-base", check=False)
    assert done.returncode == 3
    assert "no backend can be used" in done.stdout


def test_a_broken_way_is_named_where_it_breaks(mesh: World):
    client, server = pods(mesh)
    address = [f"0x{int(part):02x}" for part in server.ips[0].split(".")]
    key = ["0x40", "0x00", "0x00", "0x00", "0x00", "0x00", "0x00", "0x01", *address]
    mesh.bpftool(
        *("map", "delete", "pinned", pin(mesh, "cilium_ipcache"), "key", "hex"),
        *(word.removeprefix("0x") for word in [*key, *["0x00"] * 12]),
    )
    try:
        done = mesh.meshctl("trace", named(client), named(server), "-o", "json", check=False)
        assert done.returncode == 3, done.stdout
        wrong = [it for it in json.loads(done.stdout)["hops"] if it["wrong"]]
        assert {(it["way"], it["where"], it["what"]) for it in wrong} == {
            ("there", NODE, "ipcache, destination")
        }
        assert "broken at cluster-a/node-1" in done.stderr
    finally:
        mesh.meshctl("audit", "--yes", "--node", NODE, check=False)
    assert all(not hop["wrong"] for hop in mesh.json("trace", named(client), named(server))["hops"])


# -- verify ---------------------------------------------------------------------------------------


def test_a_healthy_mesh_is_verified_and_reported(mesh: World, tmp_path: Path):
    report = tmp_path / "report.xml"

    def passed() -> bool:  # a backend of the last test may still be on its way
        done = mesh.meshctl("verify", "--junit", str(report), check=False)
        return done.returncode == 0

    eventually("every check passes", passed)
    top = Xml.parse(report).getroot()  # noqa: S314  # our own
    assert top.get("failures") == "0"
    assert int(top.get("tests", "0")) >= 40
    assert {it.get("name") for it in top} == {
        f"{cluster}/{node}"
        for cluster in ("cluster-a", "cluster-b")
        for node in ("node-1", "node-2")
    }
    told = mesh.json("verify", "--no-audit", "--node", NODE)
    assert told["ok"]
    service = f"service {mesh.service_ip('cluster-a', 'rebel-base')}:80"
    assert any(it["name"].startswith(service) for it in told["checks"])


def test_a_backend_that_does_not_answer_fails_the_verification(mesh: World, tmp_path: Path):
    _, server = pods(mesh)
    mesh.lab("kill", f"cluster-b/{server.name}")
    report = tmp_path / "report.xml"
    done = mesh.meshctl("verify", "--no-audit", "--junit", str(report), check=False)
    assert done.returncode == 1
    assert f"backend {server.ips[0]}:8080 answers" in done.stdout
    found = Xml.parse(report).iter("failure")  # noqa: S314  # our own
    failed = [it.get("message", "") for it in found]
    assert any("refused" in it for it in failed), failed


# -- sysdump --------------------------------------------------------------------------------------


def dumped(mesh: World, path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    told = mesh.json("sysdump", "--file", str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as tar:
        found = {}
        for member in tar.getmembers():
            assert member.isreg()
            assert not member.name.startswith("/")
            assert ".." not in member.name.split("/")
            content = tar.extractfile(member)
            found[member.name.partition("/")[2]] = content.read() if content else b""
    return told, found


def test_an_archive_has_everything_but_secrets(mesh: World, tmp_path: Path):
    told, found = dumped(mesh, tmp_path / "dump.tar.gz")
    assert told["partial"] is False, [it for it in told["parts"] if it["missing"] or it["cut"]]
    server = mesh.pod("cluster-b", "rebel-base")
    node = "clusters/cluster-a/nodes/node-1"
    assert server.ips[0].encode() in found[f"{node}/maps/ipcache.txt"]
    assert json.loads(found[f"{node}/status.json"])["node"] == "node-1"
    network = json.loads(found[f"{node}/network.json"])
    assert "cm_vxlan" in {link["name"] for link in network["links"]}
    assert network["rules"]["ipv4"]
    assert "10.2.1.0/24" in {route["prefix"] for route in network["routes"]["ipv4"]}
    assert server.ips[0].encode() in found["clusters/cluster-b/kvstore/cilium.ndjson"]
    assert found["logs/cluster-a/logs/node-1.agent.log"]
    assert json.loads(found["index.json"])["parts"]
    everything = b"".join(found.values()).replace(b"\\n", b"\n")
    keys = [*mesh.paths.top.rglob("*.key"), *mesh.paths.top.rglob("key.pem")]
    assert len(keys) >= 8
    for key in keys:
        for line in key.read_bytes().splitlines()[1:-1]:
            assert line not in everything, key
    assert b"PRIVATE KEY-----" not in everything


def test_what_cannot_be_had_is_marked_with_its_reason(mesh: World, tmp_path: Path):
    mesh.lab("kill", f"{NODE}/agent", "cluster-b/etcd")
    told, found = dumped(mesh, tmp_path / "dump.tar.gz")
    assert told["partial"] is True
    missing = {it["name"]: it["missing"] for it in told["parts"] if it["missing"]}
    assert "does not answer" in missing["clusters/cluster-a/nodes/node-1/status.json"]
    assert missing["clusters/cluster-b/kvstore/cilium.ndjson"]
    assert found["clusters/cluster-a/nodes/node-1/maps/ipcache.txt"]  # the kernel still knows
    text = mesh.meshctl("sysdump", "--file", str(tmp_path / "second.tar.gz"))
    assert "missing clusters/cluster-a/nodes/node-1/status.json" in text.stderr
    done = mesh.meshctl("sysdump", "--file", str(tmp_path / "second.tar.gz"), check=False)
    assert done.returncode == 1
    assert "is there already" in done.stderr
