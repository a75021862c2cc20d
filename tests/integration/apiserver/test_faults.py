"""What keeps it from its work is one sentence with the way out, and an exit code."""

import os
from pathlib import Path

import pytest

from kvstore.client import PutOp
from kvstore.etcd import open_etcd
from tests.support.apiserver import Apiserver, service
from tests.support.certs import Authority
from tests.support.etcd import Etcd


def sentence(apiserver: Apiserver, *flags: str, code: int = 1) -> str:
    """What it says on the last line; nothing of it is a traceback."""
    found, text = apiserver.run("--start-timeout=3s", "--log-level=error", *flags)
    assert found == code, text
    assert "Traceback" not in text
    last = text.rstrip("\n").rpartition("\n")[2]
    assert last.startswith("clustermesh-apiserver: ")
    return last.removeprefix("clustermesh-apiserver: ")


@pytest.mark.parametrize(
    ("flag", "part"),
    [
        ("--cluster-name=Paris", "--cluster-name: expected `str` matching regex"),
        ("--cluster-name=default", "`default` stands for a cluster outside of any mesh"),
        ("--cluster-id=0", "--cluster-id: expected `int` >= 1, found '0'"),
        ("--cluster-id=300", "--cluster-id: 300 needs --max-connected-clusters=511"),
        ("--heartbeat-interval=soon", "--heartbeat-interval: expected seconds, or a number"),
        ("--no-such-flag", "unknown flag --no-such-flag; --help lists them"),
    ],
)
def test_wrong_settings(apiserver: Apiserver, flag: str, part: str) -> None:
    assert part in sentence(apiserver, flag, code=2)


def test_no_client_file(apiserver: Apiserver) -> None:
    apiserver.client.unlink()
    assert "cannot read --etcd-config" in sentence(apiserver)


def test_a_client_file_that_is_none(apiserver: Apiserver) -> None:
    apiserver.client.write_text("endpoints: []\n")
    assert "etcd.yaml: $.endpoints: expected at least one address" in sentence(apiserver)


def test_certificate_files_that_are_not_there(apiserver: Apiserver) -> None:
    apiserver.write_client(**{"key-file": "/nonexistent/key"})
    assert "key-file: cannot read /nonexistent/key: No such file" in sentence(apiserver)


def test_a_certificate_with_the_key_of_another(apiserver: Apiserver, etcd: Etcd) -> None:
    assert etcd.tls is not None
    _, other = etcd.tls.issue("other")
    apiserver.write_client(**{"key-file": str(other)})
    assert "cannot be used together: key values mismatch" in sentence(apiserver)


def test_a_server_of_another_authority(apiserver: Apiserver, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other-ca")
    apiserver.write_client(**{"trusted-ca-file": str(other.ca)})
    text = sentence(apiserver)
    assert "the server's certificate is not one for 127.0.0.1 signed by" in text
    assert "check endpoints and trusted-ca-file" in text


def test_a_certificate_that_the_server_does_not_trust(apiserver: Apiserver, tmp_path: Path) -> None:
    cert, key = Authority(tmp_path, "other-ca").issue("admin-paris")
    apiserver.write_client(**{"cert-file": str(cert), "key-file": str(key)})
    text = sentence(apiserver)
    assert "the server refuses our certificate" in text
    assert "etcd must trust its authority" in text


def test_nobody_answers(apiserver: Apiserver, etcd: Etcd) -> None:
    etcd.kill()
    text = sentence(apiserver)
    assert "not connected" in text
    assert "check endpoints in --etcd-config, and that it runs" in text


async def test_a_certificate_that_is_not_an_administrators(
    apiserver: Apiserver, etcd: Etcd
) -> None:
    await apiserver.ready()
    apiserver.stop()
    apiserver.write_client("remote")
    assert "must be that of admin-paris" in sentence(apiserver)


async def test_the_etcd_of_another_cluster(apiserver: Apiserver, etcd: Etcd) -> None:
    await apiserver.ready()
    apiserver.stop()
    text = sentence(apiserver, "--cluster-name=rome", "--cluster-id=9")
    assert "this etcd belongs to cluster paris (id 7), not to rome: correct --etcd-config" in text
    text = sentence(apiserver, "--cluster-id=9")
    assert "belongs to cluster paris with id 7, not 9" in text
    await apiserver.ready("--cluster-id=9", "--replace-cluster-id")


async def test_the_id_of_a_remote_cluster(apiserver: Apiserver, etcd: Etcd) -> None:
    copy = b'{"id":7,"capabilities":{"syncedCanaries":true,"cached":true}}'
    async with open_etcd(etcd.config("root")) as store:
        await store.commit([PutOp("cilium/cluster-config/rome", copy)])
    assert "cluster id 7 is taken by the remote cluster rome" in sentence(apiserver)


def test_manifests_that_are_no_directory(apiserver: Apiserver) -> None:
    assert "--manifests: /nonexistent is not a directory" in sentence(
        apiserver, "--manifests=/nonexistent"
    )


def test_a_record_that_cannot_be_kept(apiserver: Apiserver) -> None:
    text = sentence(apiserver, f"--state-dir={os.devnull}/state")
    assert "cannot make the state directory /dev/null/state: Not a directory; choose" in text


def test_validate_says_every_fault(apiserver: Apiserver) -> None:
    bad = service("bad")
    bad["spec"]["ports"] = "http"
    apiserver.manifest("bad", bad)
    apiserver.users.write_text("users: [{name: a b, role: remote}]\n")
    apiserver.write_client(**{"key-file": "/nonexistent/key"})
    code, text = apiserver.run("--validate")
    assert code == 1
    lines = text.splitlines()
    assert len(lines) == 4
    assert "key-file: cannot read /nonexistent/key" in lines[0]
    assert "users[0].name: expected a certificate's common name" in lines[1]
    assert "bad.yaml" in lines[2]
    assert lines[3] == "clustermesh-apiserver: not valid: 3 faults"


def test_validate_touches_nothing(apiserver: Apiserver, etcd: Etcd) -> None:
    etcd.kill()
    assert apiserver.run("--validate") == (0, "valid\n")
    assert not apiserver.socket.exists()
    assert not (apiserver.folder / "state").exists()
