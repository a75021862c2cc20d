"""meshctl kvstore and endpoint, with apiservers that say what a test wants."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from clustermesh import meshfile
from clustermesh.kept import End, Kept
from clustermesh.meshctl.cli import app
from tests.support.agents import agent

NODE = "cilium/state/nodes/v1/{}/n1"
POD = b'{"IP":"10.1.0.7","HostIP":"192.0.2.1","ID":70000,"K8sNamespace":"shop","K8sPodName":"c-0"}'


def entries(cluster: str, *more: Kept) -> list[Kept]:
    return [
        Kept(key=NODE.format(cluster), value=b'{"Name":"n1"}', revision=5),
        Kept(key="cilium/state/ip/v1/default/10.1.0.7", value=POD, revision=6),
        Kept(key="cilium/state/ip/v1/default/broken", value=b"{", revision=6),
        Kept(key="cilium/state/identities/v1/id/70000", value=b"k8s:app=cart;", revision=7),
        *more,
    ]


def etcd(cluster: str):
    def answer(_: str, body: bytes) -> bytes:
        query = msgspec.json.decode(body, type=dict[str, str])
        found = [it for it in entries(cluster) if it.key.startswith(query["prefix"])]
        return b"".join(msgspec.json.encode(it) + b"\n" for it in (*found, End(revision=9)))

    return answer


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Path]:
    with ExitStack() as stack:
        clusters = tuple(
            meshfile.Cluster(
                name=name,
                id=number,
                endpoints=(),
                ca_cert=tmp_path,
                ca_key=tmp_path,
                config_dir=tmp_path,
                users_file=tmp_path,
                apiserver=stack.enter_context(agent(tmp_path / name, {"/v1/kvstore": etcd(name)})),
            )
            for number, name in enumerate("ab", 1)
        )
        meshfile.save(meshfile.Mesh(clusters=clusters), tmp_path / "mesh.yaml")
        yield tmp_path / "mesh.yaml"


def ran(mesh: Path, *arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, [*arguments, "--mesh", str(mesh)])
    if code == 0:
        assert done.exit_code == 0, done.output
    else:
        assert getattr(done.exception, "code", None) == code, done
    return done.stdout


def test_a_list_is_of_every_cluster_and_decoded(mesh: Path):
    text = ran(mesh, "kvstore", "list", "cilium/state/")
    assert f'{NODE.format("b")}  {{"Name":"n1"}}' in text
    told = json.loads(ran(mesh, "kvstore", "list", "cilium/state/", "-o", "json"))
    assert sorted(told) == ["a", "b"]
    by_key = {it["key"]: it["value"] for it in told["a"]}
    assert by_key["cilium/state/identities/v1/id/70000"] == ["k8s:app=cart"]
    keys = json.loads(ran(mesh, "kvstore", "list", "-o", "json", "--keys-only", "--cluster", "a"))
    assert NODE.format("a") in keys["a"]


def test_one_key_is_got_pretty_or_raw(mesh: Path):
    assert '"Name": "n1"' in ran(mesh, "kvstore", "get", NODE.format("a"))
    assert ran(mesh, "kvstore", "get", NODE.format("a"), "--raw") == '{"Name":"n1"}'
    told = json.loads(ran(mesh, "kvstore", "get", NODE.format("a"), "-o", "json"))
    assert told == {"a": {"key": NODE.format("a"), "revision": 5, "value": {"Name": "n1"}}}
    ran(mesh, "kvstore", "get", "cilium/none", code=1)


def test_endpoints_are_listed_and_shown_with_their_labels(mesh: Path):
    text = ran(mesh, "endpoint", "list", "--cluster", "a")
    assert "10.1.0.7   a/shop/c-0   70000      192.0.2.1" in text
    for which in ("a/shop/c-0", "10.1.0.7"):
        told = json.loads(ran(mesh, "endpoint", "show", which, "-o", "json"))
        assert told[0]["labels"] == ["k8s:app=cart"]
    assert "k8s:app=cart" in ran(mesh, "endpoint", "show", "a/shop/c-0")
    ran(mesh, "endpoint", "show", "a/shop/nobody", code=1)


def test_an_apiserver_that_is_gone_is_said(mesh: Path):
    document = mesh.read_text().replace("unix:", "unix:/nowhere")
    mesh.write_text(document)
    done = CliRunner().invoke(app, ["kvstore", "list", "--mesh", str(mesh)])
    assert "does not answer" in str(done.exception)
    ran(mesh, "endpoint", "list", code=4)
