"""``meshctl ca`` on a directory: what it makes, leaves alone and refuses."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from clustermesh.certificates import CertificateError, certificates_in, common_name
from clustermesh.errors import MeshError
from clustermesh.meshctl import cli
from clustermesh.meshctl.errors import MeshctlError
from clustermesh.meshctl.places import known
from clustermesh.meshfile import Cluster
from clustermesh.pki import Authority
from clustermesh.places.place import on_files
from clustermesh.trust import issuing, users


def meshctl(*argv: object, code: int = 0) -> str:
    done = CliRunner().invoke(cli.ca.app, [*map(str, argv)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.output


def told(*argv: object) -> Any:
    return json.loads(meshctl(*argv, "-o", "json"))


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    meshctl("init", "cluster-b", "--dir", tmp_path / "pki")
    return tmp_path / "pki"


def issue(pki: Path, kind: str, *more: object) -> Any:
    return told("issue", kind, "--dir", pki, "--cluster", "cluster-b", *more)


def test_an_authority_is_made_once_and_is_its_owners(pki: Path):
    before = (pki / "ca.key").read_bytes()
    assert told("init", "cluster-b", "--dir", pki)["changed"] is False
    assert (pki / "ca.key").read_bytes() == before
    assert {stat.S_IMODE(path.stat().st_mode) for path in pki.iterdir()} == {0o600}
    assert stat.S_IMODE(pki.stat().st_mode) == 0o700


def test_what_is_no_authority_is_not_overwritten(pki: Path):
    (pki / "ca.key").write_text("mine")
    with pytest.raises(CertificateError, match=r"ca\.key holds no"):
        meshctl("init", "cluster-b", "--dir", pki)
    assert (pki / "ca.key").read_text() == "mine"


@pytest.mark.parametrize(
    ("kind", "more", "name"),
    [
        ("server", (), "clustermesh-apiserver.cilium.io"),
        ("admin", (), "admin-cluster-b"),
        ("local", (), "local-cluster-b"),
        ("agent", (), "agent-cluster-b"),
        ("remote", ("--peer", "cluster-a"), "remote-cluster-a"),
    ],
)
def test_names_are_those_of_the_contract(pki: Path, kind: str, more: tuple[str, ...], name: str):
    made = issue(pki, kind, *more)
    leaf = certificates_in(Path(made["files"][0]))[0]
    assert common_name(leaf) == name
    assert Authority.load(pki / "ca.crt", pki / "ca.key").issued(leaf)


def test_a_server_has_its_further_names_and_addresses(pki: Path):
    more = ("--name", "etcd.example", "--namespace", "mesh")
    issue(pki, "server", "--address", "2001:db8::7", *more)
    found = certificates_in(pki / "server.crt")[0].extensions
    names = found.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "etcd.example" in names.get_values_for_type(x509.DNSName)
    assert "clustermesh-apiserver.mesh.svc" in names.get_values_for_type(x509.DNSName)
    assert "2001:db8::7" in map(str, names.get_values_for_type(x509.IPAddress))
    with pytest.raises(MeshctlError, match="does not appear to be an IPv4 or IPv6"):
        issue(pki, "server", "--address", "nowhere", "--force")
    with pytest.raises(MeshctlError, match="'a b' is no DNS name"):
        issue(pki, "server", "--name", "a b")


def test_a_good_server_certificate_that_lacks_an_address_is_issued_with_it_added(pki: Path):
    issue(pki, "server", "--address", "192.0.2.7", "--name", "etcd.example")
    assert issue(pki, "server", "--address", "192.0.2.7")["changed"] is False
    assert issue(pki, "server")["changed"] is False
    assert issue(pki, "server", "--address", "192.0.2.8")["changed"] is True
    found = certificates_in(pki / "server.crt")[0].extensions
    names = found.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = [*map(str, names.get_values_for_type(x509.IPAddress))]
    assert addresses == ["127.0.0.1", "::1", "192.0.2.7", "192.0.2.8"]
    assert names.get_values_for_type(x509.DNSName).count("etcd.example") == 1
    assert issue(pki, "server", "--namespace", "mesh")["changed"] is True
    assert issue(pki, "server", "--address", "192.0.2.8")["changed"] is False
    with pytest.raises(MeshctlError, match="does not appear to be an IPv4 or IPv6"):
        issue(pki, "server", "--address", "nowhere")


def test_what_is_good_is_left_alone_unless_forced(pki: Path):
    issue(pki, "admin")
    before = (pki / "admin.crt").read_bytes()
    assert issue(pki, "admin")["changed"] is False
    assert (pki / "admin.crt").read_bytes() == before
    assert issue(pki, "admin", "--force")["changed"] is True
    (pki / "admin.key").unlink()
    assert issue(pki, "admin")["changed"] is True


def test_one_authority_may_serve_the_whole_mesh(pki: Path, tmp_path: Path):
    for cluster in ("cluster-b", "cluster-c"):
        out = tmp_path / cluster
        told("issue", "admin", "--dir", pki, "--cluster", cluster, "--out", out)
        assert common_name(certificates_in(out / "admin.crt")[0]) == f"admin-{cluster}"


def test_a_request_is_signed_and_its_key_stays_away(pki: Path, tmp_path: Path):
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "csr").write_bytes(issuing.request("remote-cluster-a", key))
    more = ("--peer", "cluster-a", "--request", tmp_path / "csr")
    issue(pki, "remote", *more)
    (leaf, *_) = certificates_in(pki / "remote-cluster-a.crt")
    assert issuing.belongs(leaf, "remote-cluster-a", key.public_key())
    assert not (pki / "remote-cluster-a.key").exists()
    (tmp_path / "csr").write_bytes(issuing.request("admin-cluster-b", key))
    with pytest.raises(CertificateError, match="for 'admin-cluster-b', expected"):
        issue(pki, "remote", *more, "--force")


@pytest.mark.parametrize("name", ["../up", "a/b", "", "-a", "a" * 33, "default", "UPPER", "a\nb"])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str):
    with pytest.raises(MeshctlError, match="no cluster name"):
        meshctl("init", "--dir", tmp_path / "x", "--", name)
    assert not list(tmp_path.iterdir())


def test_a_reader_is_named_for_remote_and_for_nothing_else(pki: Path):
    for argv in (("remote",), ("admin", "--peer", "cluster-a")):
        with pytest.raises(MeshctlError, match="--peer"):
            issue(pki, *argv)


def test_certificates_are_shown_with_what_is_left(pki: Path):
    issue(pki, "admin")
    found = {one["subject"]: one for one in told("show", pki)}
    assert found["CN=clustermesh cluster-b CA"]["authority"] is True
    assert found["CN=admin-cluster-b"]["authority"] is False
    text = meshctl("list", pki / "admin.crt")
    assert "CN=admin-cluster-b" in text
    assert " 364" in text
    with pytest.raises(CertificateError, match="there is no"):
        meshctl("show", pki / "absent")


def test_a_cluster_whose_keys_are_nowhere_is_refused():
    member = Cluster(
        name="cluster-b", id=2, endpoints=("https://b.mesh.cilium.io:2379",), ca_cert=Path(),
        ca_key=Path(), config_dir=Path(), users_file=Path(),
    )  # fmt: skip
    with pytest.raises(MeshctlError, match="out of reach here"):
        known(member)


def test_users_are_added_and_removed_once(tmp_path: Path):
    path = tmp_path / "users.yaml"
    place = on_files(Cluster(name="cluster-b", id=2, users_file=path))
    assert users.add(place, "remote-cluster-a")
    assert not users.add(place, "remote-cluster-a")
    assert users.add(place, "remote-cluster-c")
    assert users.remove(place, "remote-cluster-a")
    assert not users.remove(place, "remote-cluster-a")
    assert [user.name for user in users.read(place)] == ["remote-cluster-c"]
    path.write_text("users: 7")
    with pytest.raises(MeshError, match=r"users\.yaml"):
        users.add(place, "remote-cluster-a")
    assert path.read_text() == "users: 7"
