"""Authorities, certificates and join tokens of clusters whose trust is in Secrets."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from clustermesh.certificates import parsed
from clustermesh.meshctl import main
from clustermesh.pki import Authority
from clustermesh.places import secrets as names
from clustermesh.status import ApiserverStatus, CertificateStatus
from clustermesh.trust import token as tokens
from kvstore.config import EtcdConfig
from tests.support.kube.faults import Fault
from tests.support.kube.members import SPACE, Member, members
from tests.support.provoked import provokes, witnessed

CA, REMOTES, USERS = "clustermesh-ca", names.FOR_AGENTS, names.USERS
NOBODY = {"data": {"users.yaml": "users: []\n"}}
BOTH = ("--context", "here", "--context", "there")


class World(NamedTuple):
    """``mine`` is context here, ``rome`` context there: both of ours."""

    mine: Member
    rome: Member
    run: Callable[..., tuple[int, str, str]]

    def meshctl(self, *words: str, code: int = 0) -> str:
        """What is printed; nothing secret is ever in it."""
        end, out, err = self.run(*words)
        assert end == code, f"{end}: {out}{err}"
        self.no_key_in(out + err)
        witnessed((out + err).split())
        return out + err

    def told(self, *words: str) -> Any:
        end, out, err = self.run(*words, "-o", "json")
        assert end == 0, err
        self.no_key_in(out + err)
        return json.loads(out)

    def no_key_in(self, text: str) -> None:
        assert "PRIVATE KEY" not in text
        for one in (self.mine, self.rome):
            for held in one.kube.api.store.objects.get("secrets", {}).values():
                for piece, value in (held.get("data") or {}).items():
                    assert not piece.endswith(".key") or value not in text

    def authority(self, member: Member) -> Authority:
        held = member.data("Secret", CA) or {}
        return Authority.of(held["ca.crt"], held["ca.key"], names=("crt", "key"))


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Member, Member]]:
    with members(tmp_path_factory.mktemp("trust")) as made:
        yield made


@pytest.fixture
def bare(
    servers: tuple[Path, Member, Member],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> World:
    """Two clusters without anything of a mesh."""
    kubeconfig, *both = servers
    for member in both:
        member.kube.api.faults.waiting.clear()
        member.clear()

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["meshctl", *words, "--kubeconfig", str(kubeconfig)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main.main()
        told = capsys.readouterr()
        return int(end.value.code or 0), told.out, told.err

    return World(both[0], both[1], run)


@pytest.fixture
def world(bare: World) -> World:
    """The same with the chart installed, and an authority each."""
    for at, (member, name, ip) in enumerate(
        ((bare.mine, "mine", "192.0.2.1"), (bare.rome, "rome", "192.0.2.2")), 1
    ):
        ports = [{"name": "etcd", "port": 2379}, {"name": "join", "port": 9882}]
        status = {"loadBalancer": {"ingress": [{"ip": ip}]}}
        service = {"spec": {"type": "LoadBalancer", "ports": ports}, "status": status}
        member.put("Service", "clustermesh-apiserver", service)
        member.control_plane(name, at)
        member.put("ConfigMap", USERS, NOBODY)
        member.pod("clustermesh-apiserver", "apiserver-0", "n1", "--api-listen=0.0.0.0:9880")
        pair = Authority.create(name).pair()
        member.secret(CA, **{"ca.crt": pair.certificate, "ca.key": pair.key})
    return bare


def status(name: str, number: int, **more: Any) -> ApiserverStatus:
    return ApiserverStatus(
        cluster=name, cluster_id=number, version="0", ready=True, started=0, source="", etcd="",
        **more,
    )  # fmt: skip


def test_an_authority_is_made_once_in_its_secret(bare: World):
    argv = ("ca", "init", "mine", "--context", "here")
    before = bare.mine.everything()
    assert "would write" in bare.meshctl(*argv, "--dry-run")
    assert bare.mine.everything() == before
    assert bare.told(*argv)["changed"] is True
    held = bare.mine.data("Secret", CA)
    assert held is not None
    assert sorted(held) == ["ca.crt", "ca.key"]
    assert bare.told(*argv)["changed"] is False
    assert bare.mine.data("Secret", CA) == held
    bare.mine.secret(CA, **{"ca.key": held["ca.key"]})
    assert "ca.crt holds no certificate" in bare.meshctl(*argv, code=1)


def test_an_authority_of_ciliums_chart_is_the_authority(bare: World):
    pair = Authority.create("cilium").pair()
    bare.mine.secret("cilium-ca", **{"ca.crt": pair.certificate, "ca.key": pair.key})
    assert bare.told("ca", "init", "mine", "--context", "here")["changed"] is False
    assert bare.mine.data("Secret", CA) is None


def test_certificates_are_issued_into_the_charts_secrets(bare: World):
    bare.told("ca", "init", "mine", "--context", "here")
    authority = bare.authority(bare.mine)
    for kind, more, name in (
        ("server", ("--address", "192.0.2.7"), "clustermesh-apiserver.cilium.io"),
        ("admin", (), "admin-mine"),
        ("local", (), "local-mine"),
        ("agent", (), "agent-mine"),
        ("remote", ("--peer", "mine"), "remote-mine"),
    ):
        argv = ("ca", "issue", kind, "--cluster", "mine", "--context", "here", *more)
        done = bare.told(*argv)
        assert done["changed"] is True
        secret = f"clustermesh-apiserver-{kind}-cert"
        held = bare.mine.data("Secret", secret) or {}
        assert sorted(held) == ["ca.crt", "tls.crt", "tls.key"]
        assert authority.vouches_for_pem(held["tls.crt"], name)
        assert held["ca.crt"] == authority.bundle
        kept = bare.mine.kube.api.store.objects["secrets"][SPACE, secret]
        assert kept["type"] == "kubernetes.io/tls"
        assert bare.told(*argv)["changed"] is False
    more = ("--cluster", "mine", "--context", "here", "--address", "192.0.2.8")
    before = bare.mine.everything()
    assert "would write" in bare.meshctl("ca", "issue", "server", *more, "--dry-run")
    assert bare.mine.everything() == before
    assert bare.told("ca", "issue", "server", *more)["changed"] is True
    shown = bare.meshctl("ca", "issue", "server", *more)
    assert "nothing to do" in shown
    assert "connect" in bare.meshctl("ca", "issue", "remote", "--peer", "rome", *more[:4], code=2)


def test_what_is_where_is_shown_without_keys(world: World):
    world.told("ca", "issue", "server", "--cluster", "mine", "--context", "here")
    found = world.told("ca", "show", "--context", "here")
    by = {one["file"]: one for one in found}
    assert by[f"Secret {SPACE}/{CA}, ca.crt"]["authority"] is True
    server = by[f"Secret {SPACE}/clustermesh-apiserver-server-cert, tls.crt"]
    assert server["subject"] == "CN=clustermesh-apiserver.cilium.io"
    assert CA in world.meshctl("ca", "list", "--context", "here")


def test_where_is_asked_for_when_it_is_not_clear(bare: World):
    assert "--dir DIR" in bare.meshctl("ca", "init", "mine", *BOTH, code=2)
    assert "no Secret clustermesh-ca or cilium-ca" in bare.meshctl(
        "ca", "issue", "admin", "--cluster", "mine", "--context", "here", code=1
    )


def test_two_clusters_join_by_files_with_everything_in_secrets(world: World, tmp_path: Path):
    made = world.told("token", "create", "rome", "--context", "here")
    assert tokens.read(made["token"]).addresses == ("192.0.2.1:9882",)
    assert tokens.read(made["token"]).secret.encode() not in b"".join(
        (world.mine.data("Secret", names.TOKENS) or {}).values()
    )
    request, answer, finish = (str(tmp_path / it) for it in ("request", "answer", "finish"))
    there = (made["token"], "--context", "there")
    world.meshctl("join", *there, "--request", request)
    world.meshctl("token", "answer", request, "--out", answer, "--context", "here")
    world.meshctl("join", *there, "--bundle", answer, "--finish", finish)
    said = world.meshctl("token", "answer", finish, "--context", "here")
    assert "rome has joined mine" in said
    (listed,) = world.told("token", "list", "--context", "here")
    assert (listed["guest"], listed["state"]) == ("rome", "done")
    for reader, source, name, peer in (
        (world.rome, world.mine, "rome", "mine"),
        (world.mine, world.rome, "mine", "rome"),
    ):
        held = reader.data("Secret", REMOTES) or {}
        (tmp_path / peer).write_bytes(held[peer])
        assert EtcdConfig.load(tmp_path / peer).host_aliases
        issued = held[f"{peer}.etcd-client.crt"]
        assert world.authority(source).vouches_for_pem(issued, f"remote-{name}")
        assert f"remote-{name}".encode() in (source.data("ConfigMap", USERS) or {})["users.yaml"]
    assert "nothing to change" in world.meshctl("plan", "mine", "rome", *BOTH, code=3)


def test_a_token_is_good_once_whichever_replica_is_asked(world: World, tmp_path: Path):
    """Of two that use it at the same moment one finds the record changed under its hands."""
    made = world.told("token", "create", "rome", "--context", "here")
    request, answer = str(tmp_path / "request"), str(tmp_path / "answer")
    world.meshctl("join", made["token"], "--context", "there", "--request", request)
    race = Fault(
        where=f"PUT /api/v1/namespaces/{SPACE}/secrets/{names.TOKENS}", status=409, times=9
    )
    world.mine.kube.api.faults.add(race)
    argv = ("token", "answer", request, "--out", answer, "--context", "here")
    assert "somebody else is using the token" in world.meshctl(*argv, code=1)
    assert (world.mine.data("ConfigMap", USERS) or {})["users.yaml"] == b"users: []\n"
    world.mine.kube.api.faults.waiting.clear()
    world.meshctl(*argv)
    world.rome.put("Secret", REMOTES, {"data": {}})  # a thief has another key
    world.meshctl("join", made["token"], "--context", "there", "--request", request)
    assert "used already" in world.meshctl(*argv, code=1)


def test_parting_takes_back_the_tokens_of_the_other(world: World, tmp_path: Path):
    first = world.told("token", "create", "rome", "--context", "here")
    other = world.told("token", "create", "oslo", "--context", "here")
    planned = world.told("disconnect", "mine", "rome", "--dry-run", *BOTH)["changes"]
    assert [it for it in planned if first["id"] in it]
    said = world.meshctl("disconnect", "mine", "rome", "--no-wait", *BOTH)
    assert f"join token {first['id']} for rome revoked" in said
    states = {it["id"]: it["state"] for it in world.told("token", "list", "--context", "here")}
    assert states == {first["id"]: "revoked", other["id"]: "open"}
    request = str(tmp_path / "request")
    world.meshctl("join", first["token"], "--context", "there", "--request", request)
    argv = ("token", "answer", request, "--out", request, "--context", "here")
    assert "revoked" in world.meshctl(*argv, code=1)


def test_a_peer_is_let_in_no_more(world: World):
    world.told("token", "create", "rome", "--context", "here")
    listed = {"data": {"users.yaml": "users:\n- {name: remote-rome, role: remote}\n"}}
    world.mine.put("ConfigMap", USERS, listed)
    pod = world.mine.kube.api.pods.ports.setdefault("apiserver-0:9880", {})
    pod["/v1/status"] = status("mine", 1, peers=())
    argv = ("ca", "revoke", "mine", "rome", "--context", "here")
    before = world.mine.everything()
    assert "would be removed" in world.meshctl(*argv, "--dry-run")
    assert world.mine.everything() == before
    assert world.told(*argv)["changed"] is True
    assert (world.mine.data("ConfigMap", USERS) or {})["users.yaml"] == b"users: []\n"
    (listed,) = world.told("token", "list", "--context", "here")
    assert listed["state"] == "revoked"
    assert world.told(*argv)["changed"] is False


def unreadable(world: World, what: str) -> None:
    world.mine.kube.api.faults.add(
        Fault(where=f"GET /api/v1/namespaces/{SPACE}/{what}", status=403, times=99)
    )


def test_tokens_that_cannot_be_read_are_told_of_when_a_peer_is_revoked(world: World):
    """Its user is removed all the same."""
    world.told("token", "create", "rome", "--context", "here")
    listed = {"data": {"users.yaml": "users:\n- {name: remote-rome, role: remote}\n"}}
    world.mine.put("ConfigMap", USERS, listed)
    unreadable(world, f"secrets/{names.TOKENS}")
    argv = ("ca", "revoke", "mine", "rome", "--context", "here", "--timeout", "0")
    said = world.meshctl(*argv, code=1)
    assert "join tokens that rome may have are as they were" in said
    assert (world.mine.data("ConfigMap", USERS) or {})["users.yaml"] == b"users: []\n"
    world.mine.kube.api.faults.waiting.clear()
    assert world.told(*argv)["changed"] is False
    (token,) = world.told("token", "list", "--context", "here")
    assert token["state"] == "revoked"


def test_tokens_that_cannot_be_read_are_told_of_when_clusters_part(world: World):
    world.told("token", "create", "rome", "--context", "here")
    world.meshctl("connect", "mine", "rome", "--no-wait", "--force", *BOTH)
    argv = ("disconnect", "mine", "rome", "--no-wait", *BOTH)
    unreadable(world, f"secrets/{names.TOKENS}")
    said = world.meshctl(*argv)
    assert "disconnect again when that is mended" in said
    world.mine.kube.api.faults.waiting.clear()
    assert "disconnect again" not in world.meshctl(*argv)
    (token,) = world.told("token", "list", "--context", "here")
    assert token["state"] == "revoked"
    assert (world.mine.data("ConfigMap", USERS) or {})["users.yaml"] == b"users: []\n"


@pytest.mark.parametrize("left", [False, True])
def test_a_cluster_that_lists_no_users_cannot_be_joined(world: World, left: bool):
    if left:  # Helm keeps the list when joining is switched off; nobody reads it then
        world.mine.deployment("--cluster-name=mine", "--cluster-id=1", "--source=kubernetes")
    else:
        del world.mine.kube.api.store.objects["configmaps"][SPACE, USERS]
    said = world.meshctl("token", "create", "rome", "--context", "here", code=1)
    assert "join.enabled" in said
    assert "join.enabled" in world.meshctl(
        "ca", "revoke", "mine", "rome", "--context", "here", code=2
    )


def served(world: World) -> CertificateStatus:
    (leaf, *_) = parsed(
        (world.mine.data("Secret", "clustermesh-apiserver-server-cert") or {})["tls.crt"], "it"
    )
    from cryptography.hazmat.primitives import hashes

    return CertificateStatus(
        what="server of https://127.0.0.1:2379", subject="", not_after=0,
        fingerprint=leaf.fingerprint(hashes.SHA256()).hex(),
    )  # fmt: skip


@provokes("CA_UNTRIED", "PEER_UNKNOWN", "SERVER_OLD", "SERVER_RENEWED")
def test_an_authority_is_replaced_in_secrets_and_dropped_only_when_it_is_out_of_use(world: World):
    for kind in ("server", "admin"):
        world.told("ca", "issue", kind, "--cluster", "mine", "--context", "here")
    world.meshctl("connect", "mine", "rome", "--no-wait", "--force", *BOTH)
    pod = world.mine.kube.api.pods.ports.setdefault("apiserver-0:9880", {})
    pod["/v1/status"] = status("mine", 1, certificates=(served(world),))
    first = world.authority(world.mine)
    keys = {
        name: (world.mine.data("Secret", name) or {})["tls.key"]
        for name in ("clustermesh-apiserver-server-cert", "clustermesh-apiserver-admin-cert")
    }
    world.rome.pod("clustermesh-agent", "agent-0", "n1", "--api-listen=127.0.0.1:9885")
    argv = ("ca", "rotate", "mine", *BOTH)
    before = world.mine.everything(), world.rome.everything()
    assert "new authority" in world.meshctl(*argv, "--dry-run")
    assert (world.mine.everything(), world.rome.everything()) == before

    said = world.meshctl(*argv, code=3)  # the pods have not got the new certificate yet
    assert "CA_UNTRIED" in said
    assert "PEER_UNKNOWN" in said, "agents answer on their nodes only"
    assert "SERVER_OLD" in said
    assert "run this again" in said
    both = world.authority(world.mine)
    assert both.root != first.root
    assert len(parsed(both.bundle, "")) == 2
    held = world.rome.data("Secret", REMOTES) or {}
    assert held["mine.etcd-client-ca.crt"] == both.bundle
    assert both.vouches_for_pem(held["mine.etcd-client.crt"], "remote-rome")

    pod["/v1/status"] = status("mine", 1, certificates=(served(world),))
    said = world.meshctl(*argv)
    assert "SERVER_RENEWED" in said
    last = world.authority(world.mine)
    assert parsed(last.bundle, "") == [both.root]
    assert sorted(world.mine.data("Secret", CA) or {}) == ["ca.cross.crt", "ca.crt", "ca.key"]
    for name, key in keys.items():
        leaf = world.mine.data("Secret", name) or {}
        assert leaf["tls.key"] == key
        assert leaf["ca.crt"] == last.bundle
        assert last.issued(parsed(leaf["tls.crt"], "")[0])
    assert (world.rome.data("Secret", REMOTES) or {})["mine.etcd-client-ca.crt"] == last.bundle


def test_one_authority_for_several_clusters_is_not_replaced_in_one(world: World):
    held = world.mine.data("Secret", CA) or {}
    world.rome.secret(CA, **held)
    said = world.meshctl("ca", "rotate", "mine", *BOTH, code=2)
    assert "rome has the same authority as mine" in said


def test_a_write_that_is_not_allowed_is_told_by_a_dry_run(bare: World):
    denied = Fault(where=f"POST /api/v1/namespaces/{SPACE}/secrets", status=403, times=9)
    bare.mine.kube.api.faults.add(denied)
    said = bare.meshctl("ca", "init", "mine", "--context", "here", "--dry-run", code=4)
    assert "403" in said
