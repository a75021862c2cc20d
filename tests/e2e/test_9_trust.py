"""Trust under a running mesh: a cluster joins with a token, and an authority is replaced."""

import os
import subprocess

from clustermesh.trust import token as tokens
from tests.e2e.world import MESHCTL, World, eventually
from tests.support.provoked import provokes, witnessed

BOTH = {"cluster-a", "cluster-b"}


def answering(mesh: World) -> set[str]:
    pod = mesh.pod("cluster-a", "client")
    return set(mesh.clusters(pod, mesh.service_ip("cluster-a", "rebel-base")))


def join(mesh: World, token: str) -> str:
    """Typed where the inviting cluster can be reached: the lab's underlay is in namespaces."""
    netns = mesh.paths.control_plane_netns("cluster-a")
    done = subprocess.run(
        ["ip", "netns", "exec", netns, *MESHCTL, "join", "-", "--cluster", "cluster-a"],
        input=token,
        capture_output=True,
        text=True,
        env={**os.environ, "MESHCTL_MESH": str(mesh.paths.mesh)},
        timeout=150,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_cluster_joins_with_a_token_and_the_mesh_works(mesh: World):
    mesh.meshctl("disconnect", "cluster-a", "cluster-b")
    assert answering(mesh) == {"cluster-a"}
    token = mesh.json("token", "create", "cluster-a", "--cluster", "cluster-b")["token"]
    said = join(mesh, token)
    assert "cluster-a/node-1: synced" in said
    mesh.meshctl("status", "--wait", "--timeout", "60")
    assert answering(mesh) == BOTH
    (listed,) = mesh.json("token", "list", "--cluster", "cluster-b")
    assert listed["state"] == "done"
    assert "nothing to change" in mesh.meshctl("connect", "cluster-a", "cluster-b").stdout
    secret = tokens.read(token).secret
    for log in mesh.paths.cluster("cluster-b").glob("logs/*.log"):
        assert secret not in log.read_text(), log


def connections(mesh: World) -> dict[tuple[str, str], tuple[float, int]]:
    """When each node's connection to each remote cluster began, and failures so far."""
    return {
        (node, remote["name"]): (remote["connected-since"], remote["num-failures"])
        for node, agent in mesh.json("status")["agents"].items()
        for remote in (agent["own"], *agent["remotes"])
    }


@provokes("CA_TAKEN", "PEER")
def test_an_authority_is_replaced_and_no_node_connects_anew(mesh: World):
    before = connections(mesh)
    taken = mesh.json("ca", "rotate", "cluster-b")
    assert [one["step"] for one in taken] == ["trust", "issue", "drop"]
    for one in taken:
        found = {finding["code"]: finding["result"] for finding in one["findings"]}
        witnessed(found)
        assert found == {"CA_TAKEN": "ok", "PEER": "ok"}, one
    assert connections(mesh) == before
    assert answering(mesh) == BOTH

    mesh.lab("restart", "cluster-b/etcd")  # now it believes the new one only
    mesh.meshctl("status", "--wait", "--timeout", "60")
    eventually("all nodes have connected anew", lambda: connections(mesh) != before)
    assert answering(mesh) == BOTH
    (row,) = (it for it in mesh.json("ca", "show") if it["file"].endswith("cluster-b/pki/ca.crt"))
    assert row["subject"] != "CN=clustermesh cluster-b CA"
