"""What is collected of clusters that are elsewhere."""

from pathlib import Path

import msgspec
import pytest

from clustermesh import meshfile
from clustermesh.meshctl.sysdump import collect
from clustermesh.meshctl.sysdump.command import default_logs
from tests.support.agents import agent


def cluster(apiserver: str, node: str, folder: Path = Path()) -> meshfile.Cluster:
    return meshfile.Cluster(
        name="a",
        id=1,
        endpoints=(),
        ca_cert=folder,
        ca_key=folder,
        config_dir=folder,
        users_file=folder,
        apiserver=apiserver,
        nodes=(meshfile.Node(name="n1", agent=node),),
    )


def test_a_part_that_cannot_be_had_says_why_and_the_others_come(tmp_path: Path):
    (tmp_path / "x.log").write_text("hello")
    (tmp_path / "link.log").symlink_to("/etc/passwd")
    with agent(tmp_path / "api", {"/v1/status": {"ready": True}}) as url:
        mesh = meshfile.Mesh(clusters=(cluster(url, "http://127.0.0.1:1", Path("relative")),))
        found = {"/".join(place): (content, why) for place, content, why in
                 collect.everything(mesh, (tmp_path,))}  # fmt: skip
    assert found["clusters/a/apiserver/status.json"][0] == b'{"ready":true}'
    assert "answers 404" in found["clusters/a/apiserver/metrics.txt"][1]
    assert "on another machine" in found["clusters/a/nodes/n1/maps/ipcache.txt"][1]
    assert found["logs/x.log"] == (b"hello", "")
    assert "logs/link.log" not in found
    assert found["clusters/a/files.txt"][0] == b"FILE   MODE   BYTES\n"


def test_a_kvstoremesh_is_asked_for_its_own_word(tmp_path: Path):
    answers = {"/v1/status": {"role": "leading"}, "/v1/cluster": [], "/metrics": b"up 1\n"}
    with agent(tmp_path / "api", answers) as url:
        one = msgspec.structs.replace(cluster("", ""), nodes=(), kvstoremesh=url)
        found = {"/".join(place): (content, why) for place, content, why in
                 collect.everything(meshfile.Mesh(clusters=(one,)), ())}  # fmt: skip
    assert found["clusters/a/kvstoremesh/status.json"][0] == b'{"role":"leading"}'
    assert found["clusters/a/kvstoremesh/cluster.json"][0] == b"[]"
    assert found["clusters/a/kvstoremesh/metrics.txt"][0] == b"up 1\n"


def test_a_mesh_in_no_file_has_no_logs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("MESHCTL_MESH", raising=False)
    monkeypatch.setattr("clustermesh.meshctl.context.lab_root", lambda: tmp_path / "none")
    assert default_logs(None) == ()
