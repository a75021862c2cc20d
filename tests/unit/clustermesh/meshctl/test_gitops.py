"""A Cilium cluster that nothing but a mesh file describes: its Secret is printed, not written."""

import base64
from pathlib import Path

import pytest
import yaml

from clustermesh import meshfile
from clustermesh.errors import MeshError
from clustermesh.meshctl import main, performing, plan
from clustermesh.pki import Authority
from tests.unit.clustermesh.meshctl.test_peering import cluster

NAMES = ["cluster-a", "rome"]


@pytest.fixture
def mesh(tmp_path: Path) -> Path:
    ours = cluster("cluster-a", 1, tmp_path)
    Authority.create("rome").write(tmp_path / "rome.crt", tmp_path / "rome.key")
    rome = meshfile.Cluster(
        name="rome", id=4, cilium=True, shared_user=True, namespace="cilium",
        endpoints=("https://rome.example.org:2379",),
        ca_cert=tmp_path / "rome.crt", ca_key=tmp_path / "rome.key",
    )  # fmt: skip
    meshfile.save(meshfile.Mesh(clusters=(ours, rome)), tmp_path / "mesh.yaml")
    return tmp_path / "mesh.yaml"


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_secret_is_printed_and_nothing_is_written(mesh: Path, monkeypatch, capsys):
    before = files(mesh.parent)
    monkeypatch.setattr("sys.argv", ["meshctl", "connect", *NAMES, "--print", "--mesh", str(mesh)])
    with pytest.raises(SystemExit) as end:
        main.main()
    told = capsys.readouterr()
    assert end.value.code == 0, told.err
    assert files(mesh.parent) == before
    ours, romes = yaml.safe_load_all(told.out)
    assert ours["metadata"] == {"name": "cilium-clustermesh", "namespace": "kube-system"}
    assert romes["metadata"] == {"name": "cilium-clustermesh", "namespace": "cilium"}
    pieces = {name: base64.b64decode(text) for name, text in romes["data"].items()}
    assert pieces["cluster-a"] == (
        b"endpoints:\n"
        b"- https://cluster-a.mesh.cilium.io:2379\n"
        b"trusted-ca-file: /var/lib/cilium/clustermesh/cluster-a.etcd-client-ca.crt\n"
        b"key-file: /var/lib/cilium/clustermesh/cluster-a.etcd-client.key\n"
        b"cert-file: /var/lib/cilium/clustermesh/cluster-a.etcd-client.crt\n"
        b"cilium-host-aliases:\n"
        b"  cluster-a.mesh.cilium.io:\n"
        b"    ips:\n"
        b"    - 172.30.1.1\n"
    )
    folder = mesh.parent / "cluster-a"
    authority = Authority.load(folder / "ca.crt", folder / "ca.key")
    assert pieces["cluster-a.etcd-client-ca.crt"] == authority.bundle
    assert authority.vouches_for_pem(pieces["cluster-a.etcd-client.crt"], "remote-rome")
    assert b"PRIVATE KEY" in pieces["cluster-a.etcd-client.key"]
    assert len(pieces) == 4
    assert "cluster-a: its etcd must have the user remote-rome" in told.err


def test_writing_there_is_refused_before_anything_is_changed(mesh: Path):
    loaded = meshfile.load(mesh)
    before = files(mesh.parent)
    with pytest.raises(MeshError, match="connect --print"):
        performing.perform(performing.CONNECT, loaded, NAMES, timeout=0, report=lambda _: None)
    assert files(mesh.parent).keys() - before.keys() <= set()


def test_a_source_that_nobody_reaches_is_refused(mesh: Path):
    document = yaml.safe_load(mesh.read_text())
    del document["clusters"][0]["endpoints"]
    mesh.write_text(yaml.safe_dump(document))
    loaded = meshfile.load(mesh)
    assert "ENDPOINT_NONE" in {it.code for it in plan.make(loaded, NAMES).failures}
    with pytest.raises(MeshError, match="nobody knows how the etcd of cluster-a is reached"):
        performing.perform(performing.CONNECT, loaded, NAMES, timeout=0, report=lambda _: None)


@pytest.mark.parametrize("lacking", ["ca-key", "ca-cert", "config-dir", "users-file"])
def test_a_cluster_that_cannot_be_reached_is_refused_by_field(mesh: Path, lacking: str):
    document = yaml.safe_load(mesh.read_text())
    del document["clusters"][0][lacking]
    mesh.write_text(yaml.safe_dump(document))
    with pytest.raises(MeshError, match=f"'cluster-a' needs `{lacking}`, or a `context`"):
        meshfile.load(mesh)
