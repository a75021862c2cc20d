"""Connecting and parting clusters, as changes on disk."""

from pathlib import Path

import msgspec
import pytest
import yaml

from clustermesh.errors import MeshError
from clustermesh.meshctl import connect, performing, revoke
from clustermesh.meshctl.errors import MeshctlError
from clustermesh.meshctl.peering import making, peerings, unmaking
from clustermesh.meshfile import Cluster, Mesh
from clustermesh.pki import Authority, CertificateError
from kvstore.config import EtcdConfig
from tests.support.agents import Said, agent

PEERS = ["cluster-a", "cluster-b"]


def cluster(name: str, number: int, top: Path) -> Cluster:
    folder = top / name
    (folder / "remotes").mkdir(parents=True)
    Authority.create(name).write(folder / "ca.crt", folder / "ca.key")
    (folder / "users.yaml").write_text("users:\n- {name: remote-elsewhere, role: remote}\n")
    return Cluster(
        name=name,
        id=number,
        endpoints=(f"https://{name}.mesh.cilium.io:2379",),
        host_aliases={f"{name}.mesh.cilium.io": ("172.30.1.1",)},
        ca_cert=folder / "ca.crt",
        ca_key=folder / "ca.key",
        config_dir=folder / "remotes",
        users_file=folder / "users.yaml",
    )


@pytest.fixture
def mesh(tmp_path: Path) -> Mesh:
    names = enumerate((*PEERS, "cluster-c"), 1)
    return Mesh(clusters=tuple(cluster(name, number, tmp_path) for number, name in names))


def perform(task: performing.Task, mesh: Mesh, names: list[str]) -> tuple[str, ...]:
    return performing.perform(task, mesh, names, timeout=0, report=lambda _: None).changes


def files(mesh: Mesh) -> dict[Path, bytes]:
    top = mesh.clusters[0].ca_cert.parent.parent
    return {path: path.read_bytes() for path in sorted(top.rglob("*")) if path.is_file()}


def users(mesh: Mesh, name: str) -> list[str]:
    document = yaml.safe_load(mesh.cluster(name).users_file.read_text())
    return [user["name"] for user in document["users"]]


def test_each_side_follows_the_other_with_a_certificate_of_its_own(mesh: Mesh):
    perform(performing.CONNECT, mesh, PEERS)
    for reader, source in (PEERS, reversed(PEERS)):
        folder = mesh.cluster(reader).config_dir
        config = EtcdConfig.load(folder / source)
        assert [endpoint.host for endpoint in config.endpoints] == [f"{source}.mesh.cilium.io"]
        assert config.host_aliases == {f"{source}.mesh.cilium.io": ("172.30.1.1",)}
        assert config.ignored == ()
        authority = Authority.load(mesh.cluster(source).ca_cert, mesh.cluster(source).ca_key)
        assert authority.vouches_for(Path(str(config.cert_file)), f"remote-{reader}")
        assert f"remote-{reader}" in users(mesh, source)


def test_everything_written_is_for_its_owner_only(mesh: Mesh):
    perform(performing.CONNECT, mesh, PEERS)
    written = [*mesh.cluster("cluster-a").config_dir.iterdir()]
    assert len(written) == 4
    assert {path.stat().st_mode & 0o777 for path in written} == {0o600}


def test_only_the_client_file_counts_as_a_cluster(mesh: Mesh):
    perform(performing.CONNECT, mesh, PEERS)
    folder = mesh.cluster("cluster-a").config_dir
    counted = [path.name for path in folder.iterdir() if b"endpoints:" in path.read_bytes()]
    assert counted == ["cluster-b"]


def test_the_client_file_comes_last(mesh: Mesh):
    (first, _) = peerings(mesh, PEERS)
    *_, last = making(first)
    assert "follows cluster-b (" in last.what
    perform(performing.CONNECT, mesh, PEERS)
    parting, *_ = unmaking(first)
    assert "follows cluster-b no more (" in parting.what


def test_connecting_twice_changes_nothing(mesh: Mesh):
    assert perform(performing.CONNECT, mesh, PEERS)
    before = files(mesh)
    assert perform(performing.CONNECT, mesh, PEERS) == ()
    assert files(mesh) == before


def test_what_is_missing_is_mended(mesh: Mesh):
    perform(performing.CONNECT, mesh, PEERS)
    (mesh.cluster("cluster-a").config_dir / "cluster-b.etcd-client.key").unlink()
    mesh.cluster("cluster-b").users_file.write_text("users: []\n")
    changed = perform(performing.CONNECT, mesh, PEERS)
    assert len(changed) == 2
    assert perform(performing.CONNECT, mesh, PEERS) == ()


def test_parting_undoes_connecting(mesh: Mesh):
    before = set(files(mesh))
    perform(performing.CONNECT, mesh, PEERS)
    assert perform(performing.DISCONNECT, mesh, PEERS)
    assert set(files(mesh)) == before
    assert users(mesh, "cluster-a") == ["remote-elsewhere"]
    assert perform(performing.DISCONNECT, mesh, PEERS) == ()


def test_an_apiserver_that_keeps_its_tokens_to_itself_stops_no_parting(
    mesh: Mesh, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """On TCP it lists no join tokens: a peer is parted and revoked all the same, and it is told."""
    perform(performing.CONNECT, mesh, PEERS)
    refusal = Said(403, {"error": "only on the unix socket"})
    with agent(tmp_path / "s", {"/livez": b"ok", "/v1/tokens/list": refusal}) as url:
        a, b, c = mesh.clusters
        asked = Mesh(clusters=(msgspec.structs.replace(a, apiserver=url), b, c))
        path = tmp_path / "mesh.yaml"
        path.write_bytes(msgspec.yaml.encode(asked, enc_hook=str))
        with pytest.raises(MeshctlError, match="remote-cluster-c is removed, but cluster-a: only"):
            revoke.revoke("cluster-a", "cluster-c", path, timeout=0)
        connect.disconnect(PEERS, path, wait=False)
    assert "cluster-a: only on the unix socket: join tokens that" in capsys.readouterr().err
    assert not list(a.config_dir.iterdir())
    assert users(mesh, "cluster-a") == ["remote-elsewhere"]


def test_three_clusters_are_connected_pairwise_and_parted_alone(mesh: Mesh):
    perform(performing.CONNECT, mesh, [*PEERS, "cluster-c"])
    assert sorted(users(mesh, "cluster-c"))[:2] == ["remote-cluster-a", "remote-cluster-b"]
    perform(performing.DISCONNECT, mesh, PEERS)
    assert (mesh.cluster("cluster-a").config_dir / "cluster-c").exists()
    assert not (mesh.cluster("cluster-a").config_dir / "cluster-b").exists()


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["cluster-a"], "at least two"),
        (["cluster-a", "cluster-a"], "cluster-a is named twice"),
        (["cluster-a", "cluster-bb"], "Did you mean 'cluster-b'"),
    ],
)
def test_wrong_names_are_refused(mesh: Mesh, names: list[str], said: str):
    with pytest.raises(MeshError, match=said):
        peerings(mesh, names)


def test_a_peer_whose_authority_cannot_be_read_is_refused_by_file(mesh: Mesh):
    mesh.cluster("cluster-b").ca_key.write_text("nothing")
    with pytest.raises(CertificateError, match=r"cluster-b/ca\.key"):
        perform(performing.CONNECT, mesh, PEERS)


@pytest.mark.parametrize("text", ["users: 7", "[1", "- a"])
def test_a_users_file_that_is_none_is_refused_and_kept(mesh: Mesh, text: str):
    mesh.cluster("cluster-b").users_file.write_text(text)
    with pytest.raises(MeshError, match=r"users\.yaml"):
        perform(performing.CONNECT, mesh, PEERS)
    assert mesh.cluster("cluster-b").users_file.read_text() == text
