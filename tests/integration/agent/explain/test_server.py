"""The way to a server over real sockets and real TLS: each thing that can be wrong is named."""

import contextlib
import datetime
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clustermesh.findings import Result
from clustermesh.pki import Authority
from clustermesh.remotes import way
from clustermesh.remotes.way import Server, walk
from tests.support.etcd import free_port
from tests.support.provoked import provokes, witnessed

NAME = "clustermesh-apiserver.cilium.io"
LONG_AGO = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=4000)


@pytest.fixture
def pki(tmp_path: Path) -> tuple[Authority, Path]:
    authority = Authority.create("cluster-b")
    authority.write(tmp_path / "ca.crt", tmp_path / "ca.key")
    authority.server().write(tmp_path / "server.crt", tmp_path / "server.key")
    authority.client("remote-a").write(tmp_path / "client.crt", tmp_path / "client.key")
    return authority, tmp_path


@contextmanager
def listening(context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server that shakes hands and says one byte, until the end."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                client, _ = made.accept()
                with client, contextlib.suppress(OSError):
                    if context is None:
                        client.close()
                        continue
                    with context.wrap_socket(client, server_side=True) as secure:
                        secure.sendall(b"x")
                        secure.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield made.getsockname()[1]
        finally:
            stop.set()
            with contextlib.suppress(OSError):
                socket.create_connection(made.getsockname(), timeout=5).close()
            thread.join(30)


def etcd_like(folder: Path, *, certificate: str = "server", trusted: str = "ca") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{certificate}.crt", folder / f"{certificate}.key")
    context.load_verify_locations(folder / f"{trusted}.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def tried(port: int, folder: Path, *, client: bool = True, **changes: str) -> list[tuple[str, str]]:
    server = Server(
        host="127.0.0.1",
        port=port,
        name=NAME,
        authority=(folder / "ca.crt").read_text(),
        certificate=str(folder / "client.crt") if client else "",
        key=str(folder / "client.key") if client else "",
    )
    findings = walk(server._replace(**changes))
    assert all(bool(one.fix) is (one.result is not Result.OK) for one in findings)
    witnessed(one.code for one in findings)
    return [(one.code, one.seen) for one in findings]


@provokes("DNS", "TCP", "TLS")
def test_a_way_that_works_names_who_answered(pki):
    _, folder = pki
    with listening(etcd_like(folder)) as port:
        *_, (code, seen) = tried(port, folder)
    assert code == "TLS"
    assert "CN=clustermesh-apiserver.cilium.io, valid until" in seen


def test_without_a_client_certificate_the_server_still_proves_who_it_is(pki):
    _, folder = pki
    with listening(etcd_like(folder)) as port:
        assert [code for code, _ in tried(port, folder, client=False)] == ["DNS", "TCP", "TLS"]


@provokes("DNS_FAILED")
def test_a_name_without_an_address(pki):
    _, folder = pki
    assert tried(1, folder, host="nowhere.invalid")[-1][0] == "DNS_FAILED"


@provokes("TCP_REFUSED")
def test_a_port_where_nobody_listens(pki):
    _, folder = pki
    port = free_port()
    code, seen = tried(port, folder)[-1]
    assert code == "TCP_REFUSED"
    assert str(port) in seen


@provokes("TCP_UNREACHABLE")
def test_an_address_that_cannot_be_reached(pki):
    _, folder = pki
    assert tried(2379, folder, host="255.255.255.255")[-1][0] == "TCP_UNREACHABLE"


@provokes("TCP_TIMEOUT")
def test_an_address_that_says_nothing(pki, monkeypatch: pytest.MonkeyPatch):
    """As behind a firewall: a full backlog drops what comes."""
    _, folder = pki
    monkeypatch.setattr(way, "TIMEOUT", 0.3)
    with contextlib.ExitStack() as stack:
        deaf = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(deaf.getsockname())
        assert tried(deaf.getsockname()[1], folder)[-1][0] == "TCP_TIMEOUT"


@provokes("TLS_NOT_YET_VALID")
def test_a_server_from_the_future(pki):
    authority, folder = pki
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=2)
    authority.server(now=soon).write(folder / "server.crt", folder / "server.key")
    with listening(etcd_like(folder)) as port:
        assert tried(port, folder)[-1][0] == "TLS_NOT_YET_VALID"


@provokes("TLS_WRONG_CA")
def test_a_server_of_another_authority(pki, tmp_path: Path):
    _, folder = pki
    Authority.create("stranger").write(tmp_path / "other.crt", tmp_path / "other.key")
    with listening(etcd_like(folder)) as port:
        authority = (tmp_path / "other.crt").read_text()
        assert tried(port, folder, authority=authority)[-1][0] == "TLS_WRONG_CA"


@provokes("TLS_WRONG_NAME")
def test_a_server_of_another_name(pki):
    _, folder = pki
    with listening(etcd_like(folder)) as port:
        code, seen = tried(port, folder, name="elsewhere.example")[-1]
    assert code == "TLS_WRONG_NAME"
    assert "elsewhere.example" in seen


@provokes("TLS_EXPIRED")
def test_a_server_whose_authority_has_expired(pki):
    _, folder = pki
    old = Authority.create("cluster-b", now=LONG_AGO)
    old.write(folder / "ca.crt", folder / "ca.key")
    old.server().write(folder / "server.crt", folder / "server.key")
    with listening(etcd_like(folder)) as port:
        assert tried(port, folder)[-1][0] == "TLS_EXPIRED"


@provokes("TLS_REFUSED")
def test_a_client_certificate_that_the_server_does_not_take(pki):
    _, folder = pki
    other = Authority.create("other")
    other.client("remote-a").write(folder / "client.crt", folder / "client.key")
    with listening(etcd_like(folder)) as port:
        assert tried(port, folder)[-1][0] == "TLS_REFUSED"


@provokes("TLS_BROKEN")
def test_a_port_that_speaks_no_tls(pki):
    _, folder = pki
    with listening() as port:
        code, seen = tried(port, folder)[-1]
    assert code == "TLS_BROKEN"
    assert "within the TLS handshake" in seen


def test_a_server_that_hangs_is_told_from_one_that_hangs_up(pki, monkeypatch: pytest.MonkeyPatch):
    """As an etcd that was stopped: the kernel takes connections for it."""
    _, folder = pki
    monkeypatch.setattr(way, "TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as made:
        code, seen = tried(made.getsockname()[1], folder)[-1]
    assert code == "TLS_BROKEN"
    assert "nothing comes back" in seen


@provokes("CA_UNREADABLE", "CLIENT_CERT_UNREADABLE")
def test_files_that_cannot_be_used(pki):
    _, folder = pki
    with listening(etcd_like(folder)) as port:
        assert tried(port, folder, authority="nothing")[-1][0] == "CA_UNREADABLE"
        assert tried(port, folder, key="/nowhere")[-1][0] == "CLIENT_CERT_UNREADABLE"


@provokes("TLS_EXPIRES")
def test_a_certificate_that_ends_soon_is_a_warning(pki: tuple[Authority, Path]):
    authority, folder = pki
    old = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=350)
    authority.server(now=old).write(folder / "server.crt", folder / "server.key")
    with listening(etcd_like(folder)) as port:
        codes = [code for code, _ in tried(port, folder)]
    assert codes == ["DNS", "TCP", "TLS_EXPIRES", "TLS"]
