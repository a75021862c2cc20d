"""Certificates of a mesh."""

import datetime
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from clustermesh.certificates import CertificateError
from clustermesh.pki import Authority, KeyPair, write_private


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("cluster-a")


def handshake(authority: Authority, client: KeyPair, folder: Path, *, name: str) -> str:
    """A TLS handshake in memory; the client's name as the server saw it."""
    authority.write(folder / "ca.crt", folder / "ca.key")
    authority.server(["172.30.1.1"]).write(folder / "server.crt", folder / "server.key")
    client.write(folder / "client.crt", folder / "client.key")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(folder / "server.crt", folder / "server.key")
    serving.load_verify_locations(folder / "ca.crt")
    serving.verify_mode = ssl.CERT_REQUIRED
    asking = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    asking.load_cert_chain(folder / "client.crt", folder / "client.key")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = serving.wrap_bio(to_server, to_client, server_side=True)
    peer = asking.wrap_bio(to_client, to_server, server_hostname=name)
    for end in (peer, server, peer, server):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    subject = dict(pair[0] for pair in (server.getpeercert() or {})["subject"])
    return subject["commonName"]


@pytest.mark.parametrize(
    "name", ["clustermesh-apiserver.cilium.io", "cluster-b.mesh.cilium.io", "172.30.1.1"]
)
def test_a_client_is_known_by_name_and_the_server_by_every_name_peers_use(
    authority: Authority, tmp_path: Path, name: str
):
    client = authority.client("remote-cluster-b")
    assert handshake(authority, client, tmp_path, name=name) == "remote-cluster-b"


def test_a_client_of_another_authority_is_refused(authority: Authority, tmp_path: Path):
    stranger = Authority.create("cluster-a").client("remote-cluster-b")
    with pytest.raises(ssl.SSLError):
        handshake(authority, stranger, tmp_path, name="cluster-a.mesh.cilium.io")


def made_by_go(digest: bytes) -> Authority:
    """As Helm makes one: an RSA key, and the hash that its Go calls it by."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Clustermesh CA")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    if digest:
        made = made.add_extension(x509.SubjectKeyIdentifier(digest), critical=False)
    return Authority(made.sign(key, hashes.SHA256()), key)


@pytest.mark.parametrize("digest", [bytes(range(20)), b""])
def test_an_authority_that_calls_its_key_otherwise_is_found_as_issuer(
    digest: bytes, tmp_path: Path
):
    """Helm 4 does (Go 1.25): a cluster with such an authority could not be joined."""
    old = made_by_go(digest)
    assert handshake(old, old.client("remote-b"), tmp_path, name="172.30.1.1") == "remote-b"
    new = made_by_go(bytes(20))
    cross = x509.load_pem_x509_certificate(old.certify(new.root)).extensions
    leaf = x509.load_pem_x509_certificate(new.server().certificate).extensions
    called = cross.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert called.digest == bytes(20), "by which its certificates say who has signed them"
    signer = leaf.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert signer.key_identifier == called.digest


def test_keys_can_be_read_by_their_owner_only(authority: Authority, tmp_path: Path):
    authority.client("x").write(tmp_path / "c", tmp_path / "k")
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_an_authority_is_loaded_as_it_was_written(authority: Authority, tmp_path: Path):
    authority.write(tmp_path / "ca.crt", tmp_path / "ca.key")
    again = Authority.load(tmp_path / "ca.crt", tmp_path / "ca.key")
    again.client("x").write(tmp_path / "x.crt", tmp_path / "x.key")
    assert authority.vouches_for(tmp_path / "x.crt", "x")


def test_it_vouches_for_its_own_certificates_of_that_name_while_they_last(
    authority: Authority, tmp_path: Path
):
    authority.client("x").write(tmp_path / "x.crt", tmp_path / "x.key")
    assert not authority.vouches_for(tmp_path / "x.crt", "y")
    assert not Authority.create("cluster-a").vouches_for(tmp_path / "x.crt", "x")
    assert not authority.vouches_for(tmp_path / "absent", "x")
    late = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=340)
    assert not authority.vouches_for(tmp_path / "x.crt", "x", now=late)


def test_files_that_are_none_are_refused_by_name(authority: Authority, tmp_path: Path):
    crt, key = tmp_path / "ca.crt", tmp_path / "ca.key"
    with pytest.raises(CertificateError, match=r"cannot read .*ca\.crt"):
        Authority.load(crt, key)
    crt.write_text("hello")
    with pytest.raises(CertificateError, match=r"ca\.crt holds no certificate"):
        Authority.load(crt, key)
    authority.write(crt, key)
    Authority.create("other").write(tmp_path / "o.crt", key)
    with pytest.raises(CertificateError, match="is not the key of"):
        Authority.load(crt, key)


def test_names_follow_the_contract(authority: Authority):
    certificate = x509.load_pem_x509_certificate(authority.server().certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [
        "clustermesh-apiserver.cilium.io",
        "*.mesh.cilium.io",
        "clustermesh-apiserver.kube-system.svc",
    ]
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert [entry.value for entry in common] == ["clustermesh-apiserver.cilium.io"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "file"
    write_private(path, b"old")
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(OSError, match="folder"):
        write_private(folder, b"new")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]
    assert path.read_bytes() == b"old"
