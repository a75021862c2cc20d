"""The file that says which clusters there are."""

from pathlib import Path

import pytest

from clustermesh import meshfile
from clustermesh.errors import MeshError, UsageError
from clustermesh.meshfile import Cluster, Mesh, Node


def cluster(name: str, number: int, folder: Path = Path("/x")) -> Cluster:
    return Cluster(
        name=name,
        id=number,
        endpoints=(f"https://{name}.mesh.cilium.io:2379",),
        ca_cert=folder / "ca.crt",
        ca_key=folder / "ca.key",
        config_dir=folder / "remotes",
        users_file=folder / "users.yaml",
        nodes=(Node(name="node-1", agent="unix:/x.sock", bpf_root="/sys/fs/bpf"),),
    )


BAD_PATH = "clusters: [{name: a, id: 1, endpoints: [], ca-cert: 7}]"
MESH = Mesh(clusters=(cluster("cluster-a", 1), cluster("cluster-b", 2)))


def test_a_mesh_is_read_as_it_was_written(tmp_path: Path):
    meshfile.save(MESH, tmp_path / "mesh.yaml")
    assert meshfile.load(tmp_path / "mesh.yaml") == MESH


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (cluster("cluster-a", 2), "have the same name cluster-a"),
        (cluster("cluster-b", 1), "'cluster-a' and 'cluster-b' have the same id 1"),
    ],
)
def test_the_same_name_or_id_twice_is_refused(tmp_path: Path, second: Cluster, said: str):
    meshfile.save(Mesh(clusters=(cluster("cluster-a", 1), second)), tmp_path / "m")
    with pytest.raises(MeshError, match=said):
        meshfile.load(tmp_path / "m")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("clusters: [{name: a}]", "id"),
        ("cluster: []", "cluster"),
        ("{", "not YAML"),
        (BAD_PATH, "ca-cert"),
    ],
)
def test_a_wrong_file_is_named_with_its_field(tmp_path: Path, text: str, said: str):
    (tmp_path / "m").write_text(text)
    with pytest.raises(MeshError, match=said):
        meshfile.load(tmp_path / "m")


def test_an_unknown_cluster_is_refused_with_the_nearest_name():
    with pytest.raises(UsageError, match="Did you mean 'cluster-b'"):
        MESH.cluster("clustr-b")


def test_nodes_are_chosen_by_cluster_and_node():
    assert len(MESH.nodes()) == 2
    ((chosen, _),) = MESH.nodes("cluster-b/node-1")
    assert chosen.name == "cluster-b"
    with pytest.raises(MeshError, match="no node 'node-1'"):
        MESH.nodes("node-1")


def test_the_mesh_is_the_one_given_then_the_environments_then_the_only_lab(monkeypatch):
    lab, other = Path("/run/x/lab/mesh.yaml"), Path("/run/x/two/mesh.yaml")
    monkeypatch.setenv(meshfile.VARIABLE, "/env.yaml")
    assert meshfile.find(Path("/given"), [lab]) == Path("/given")
    assert meshfile.find(None, [lab]) == Path("/env.yaml")
    monkeypatch.delenv(meshfile.VARIABLE)
    assert meshfile.find(None, [lab]) == lab
    with pytest.raises(MeshError, match="lab, two"):
        meshfile.find(None, [lab, other])
    with pytest.raises(MeshError, match="meshctl lab up"):
        meshfile.find(None, [])
