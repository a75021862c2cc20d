"""A plan as it is shown and judged, and the authorities it looks at."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from clustermesh.findings import Diagnosis, Finding, Result
from clustermesh.meshctl import plan
from clustermesh.meshctl.errors import Exit, MeshctlError
from clustermesh.meshctl.output import Format
from clustermesh.meshctl.peering import Peering
from clustermesh.meshctl.plan import Plan, authority, make, render, show
from clustermesh.meshctl.troubleshoot import Troubles
from clustermesh.meshctl.troubleshoot import render as troubles
from clustermesh.meshfile import Cluster, Mesh
from clustermesh.pki import Authority
from clustermesh.status import KvstoremeshStatus, RemoteStatus
from tests.support.agents import Answers, agent

GOOD = Finding(code="CA", result=Result.OK, where="cluster-a", seen="valid")
BAD = Finding(
    code="TCP_REFUSED", result=Result.FAILED, where="1.2.3.4:5", seen="refuses", fix="start it"
)


def cluster(folder: Path, name: str = "cluster-a", number: int = 1) -> Cluster:
    top = folder / name
    (top / "remotes").mkdir(parents=True)
    Authority.create(name).write(top / "ca.crt", top / "ca.key")
    (top / "users.yaml").write_text("users: []\n")
    return Cluster(
        name=name,
        id=number,
        endpoints=(f"https://{name}:2379",),
        ca_cert=top / "ca.crt",
        ca_key=top / "ca.key",
        config_dir=top / "remotes",
        users_file=top / "users.yaml",
        apiserver=f"unix:{top}/apiserver.sock",
    )


def test_an_authority_is_judged_by_its_dates(tmp_path: Path):
    mine, now = cluster(tmp_path), datetime.now(UTC)
    assert authority(mine).code == "CA"
    soon = authority(mine, now=now + timedelta(days=3630))
    assert (soon.code, soon.result) == ("CA_EXPIRES", Result.WARNING)
    assert authority(mine, now=now + timedelta(days=3660)).code == "CA_EXPIRED"


def test_an_authority_whose_key_is_anothers_cannot_be_used(tmp_path: Path):
    mine, other = cluster(tmp_path), cluster(tmp_path, "cluster-b", 2)
    mine.ca_key.write_bytes(other.ca_key.read_bytes())
    assert authority(mine).code == "CA_UNUSABLE"


def test_a_plan_of_clusters_that_are_down_says_so_and_changes_nothing(tmp_path: Path):
    mesh = Mesh(clusters=(cluster(tmp_path), cluster(tmp_path, "cluster-b", 2)))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    made = make(mesh, ["cluster-a", "cluster-b"])
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert [one.code for one in made.failures] == ["APISERVER_SILENT"] * 2
    assert len(made.changes) == 8


def test_what_cannot_be_planned_for_lack_of_an_authority_is_left_out(tmp_path: Path):
    mesh = Mesh(clusters=(cluster(tmp_path), cluster(tmp_path, "cluster-b", 2)))
    mesh.clusters[1].ca_key.write_text("nothing")
    made = make(mesh, ["cluster-a", "cluster-b"])
    assert "CA_UNUSABLE" in [one.code for one in made.failures]
    assert all("issued by cluster-a" in it for it in made.changes if "certificate remote" in it)


def test_changes_and_findings_are_shown_with_fixes(capsys: pytest.CaptureFixture[str]):
    text = "\n".join(render(Plan(changes=("a: follows b",), findings=(GOOD, BAD))))
    assert "would change:\n  a: follows b" in text
    assert "failed" in text
    assert "fix: start it" in text
    show(Plan(changes=(), findings=(GOOD,)), Format.TABLE)
    assert "nothing to change" in capsys.readouterr().out


def test_a_failed_check_is_an_exit_code(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(MeshctlError, match=r"TCP_REFUSED: 1\.2\.3\.4:5: refuses") as failure:
        show(Plan(changes=(), findings=(BAD,)), Format.JSON)
    assert failure.value.code is Exit.NOT_READY
    assert '"code": "TCP_REFUSED"' in capsys.readouterr().out


def test_troubles_are_shown_per_way():
    way = Diagnosis(cluster="a", node="n", remote="b", findings=(GOOD, BAD))
    found = Troubles(diagnoses=(way,), silent={"a/m": "no socket"})
    text = "\n".join(troubles(found))
    assert "a/n to b: FAILED" in text
    assert "fix: start it" in text
    assert "a/m: its agent does not answer: no socket" in text
    assert found.failures == [(way, BAD)]
    assert "meshctl connect" in "\n".join(troubles(Troubles(diagnoses=())))


def test_behind_a_kvstoremesh_the_way_is_tried_by_that(tmp_path: Path):
    """Agents there meet only the copy in their own etcd."""
    reached = Finding(code="TLS", result=Result.OK, where="192.0.2.2:2379", seen="as it should be")
    status = KvstoremeshStatus(
        cluster="cluster-a", cluster_id=1, version="0", ready=True, started=0.0, replica="x",
        role="leading", etcd="",
    )  # fmt: skip
    answers: Answers = {"/v1/reach": [reached], "/v1/status": status}
    reader, source = cluster(tmp_path / "a"), cluster(tmp_path / "b", "cluster-b", 2)
    where = "kvstoremesh of cluster-a to cluster-b"
    with agent(tmp_path / "kvstoremesh.sock", answers) as url:
        peering = Peering(msgspec.structs.replace(reader, kvstoremesh=url), source)
        (found,) = plan._copied(peering, connected=False)
        assert (found.code, found.result, found.where) == ("ETCD_REACHED", Result.OK, where)
        (found,) = plan._copied(peering, connected=True)
        assert (found.code, found.result) == ("NOT_SYNCED", Result.FAILED)
        remote = RemoteStatus(name="cluster-b", connected=True, ready=True, num_nodes=3)
        answers["/v1/status"] = msgspec.structs.replace(status, remotes=(remote,))
        (found,) = plan._copied(peering, connected=True)
        assert (found.code, found.result) == ("ETCD_AUTHORISED", Result.OK)
        failed = msgspec.structs.replace(reached, code="TCP_REFUSED", result=Result.FAILED)
        answers["/v1/reach"] = [failed]
        (found,) = plan._copied(peering, connected=True)
        assert (found.code, found.where) == ("TCP_REFUSED", f"{where}, 192.0.2.2:2379")
    (found,) = plan._copied(peering, connected=False)
    assert (found.code, found.result) == ("REACH_UNKNOWN", Result.FAILED)
