"""What status shows, from values."""

import io

import msgspec
import pytest
from rich.console import Console

from clustermesh.meshctl.output import Format
from clustermesh.meshctl.status import MeshStatus, _show, render, told
from clustermesh.status import (
    AgentStatus,
    ApiserverStatus,
    CertificateStatus,
    Refusal,
    RemoteStatus,
    SyncedKinds,
)

SYNCED = SyncedKinds(nodes=True, services=True, identities=True, endpoints=True)
OWN = RemoteStatus(name="cluster-a", ready=True, connected=True, synced=SYNCED)
PEER = RemoteStatus(
    name="cluster-b", ready=True, connected=True, synced=SYNCED, num_nodes=2, num_endpoints=4
)
AGENT = AgentStatus(
    node="node-1",
    cluster="cluster-a",
    cluster_id=1,
    version="0",
    ready=True,
    started=1000.0,
    own=OWN,
    remotes=(PEER,),
)
APISERVER = ApiserverStatus(
    cluster="cluster-a",
    cluster_id=1,
    version="0",
    ready=True,
    started=1000.0,
    source="directory",
    etcd="etcd [1/1]",
    heartbeat=1050.0,
)


def shown(now: MeshStatus) -> str:
    console = Console(width=250, file=io.StringIO())
    for part in render(now, 1060.0):
        console.print(part)
    return console.file.getvalue()


def mesh(agent: AgentStatus | None, apiserver: ApiserverStatus | None = APISERVER) -> MeshStatus:
    return told({"cluster-a": apiserver}, {"cluster-a/node-1": agent}, 1060.0)


def test_all_is_well():
    now = mesh(AGENT)
    assert now.ready
    text = shown(now)
    assert "etcd [1/1]" in text
    assert "cluster-a (own)" in text
    assert "What is wrong" not in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ready": False}, "cluster-a/node-1: its agent is not ready"),
        ({"trouble": ("The map is full.",)}, "The map is full."),
        (
            {"remotes": (msgspec.structs.replace(PEER, ready=False, held="overlaps [x]"),)},
            "cluster-b is not ready: overlaps [x]",
        ),
        (
            {"remotes": (msgspec.structs.replace(PEER, ready=False, connected=False),)},
            "cluster-b is not ready: not synced yet",
        ),
    ],
)
def test_what_is_wrong_is_a_problem_in_words(changes, said):
    now = mesh(msgspec.structs.replace(AGENT, **changes))
    assert not now.ready
    assert said in shown(now)


def test_a_pipe_gets_whole_sentences(capsys: pytest.CaptureFixture[str]):
    long = "word " * 60 + "end"
    _show(mesh(msgspec.structs.replace(AGENT, trouble=(long,))), Format.TABLE, nodes=False)
    assert long in capsys.readouterr().out


def test_what_agents_say_steers_no_terminal(capsys: pytest.CaptureFixture[str]):
    evil = "\x1b]0;owned\x07\x9b2J"
    certificate = CertificateStatus(
        what=evil, subject=evil, fingerprint=evil, not_after=2000.0, authority=False
    )
    agent = msgspec.structs.replace(
        AGENT, version=evil, trouble=(evil,), refusals=(Refusal(what=evil, reason=evil, since=0),),
        certificates=(certificate,),
        remotes=(msgspec.structs.replace(PEER, ready=False, last_failure_reason=evil),),
    )  # fmt: skip
    _show(mesh(agent), Format.TABLE, nodes=True)
    out = capsys.readouterr().out
    assert "owned" in out
    assert out.replace("\n", "").isprintable()


def test_those_who_do_not_answer_are_problems():
    now = mesh(None, None)
    assert not now.ready
    assert "no answer" in shown(now)


def test_a_failure_is_shown_with_its_age_and_reason():
    failed = msgspec.structs.replace(
        PEER, last_failure=1000.0, last_failure_reason="refused [bold]", num_failures=3
    )
    text = shown(mesh(msgspec.structs.replace(AGENT, remotes=(failed,))))
    assert "cluster-b: refused [bold]\n    on cluster-a/node-1 (1m00s ago)" in text
    assert "3, 1m00s ago" in text


def test_kinds_that_are_not_synced_are_named():
    half = msgspec.structs.replace(PEER, ready=False, synced=SyncedKinds(nodes=True))
    text = shown(mesh(msgspec.structs.replace(AGENT, remotes=(half,))))
    assert "not services, identities, endpoints" in text


def test_refused_objects_are_named_with_their_reason():
    refusal = Refusal(what="bad.yaml, document 1", reason="metadata.name: expected text", since=0)
    text = shown(mesh(AGENT, msgspec.structs.replace(APISERVER, refusals=(refusal,))))
    assert "bad.yaml, document 1: metadata.name: expected text" in text


def test_a_certificate_in_use_is_listed_once_per_cluster_with_its_days():
    leaf = CertificateStatus(
        what="client of cluster-b",
        subject="CN=remote-cluster-a",
        fingerprint="ab" * 32,
        not_after=1060.0 + 12.5 * 86400,
    )
    agent = msgspec.structs.replace(AGENT, certificates=(leaf,))
    agents = {"cluster-a/node-1": agent, "cluster-a/node-2": agent}
    said = shown(MeshStatus(ready=True, apiservers={}, agents=agents, problems=()))
    (row,) = (line for line in said.splitlines() if "CN=remote-cluster-a" in line)
    assert row.startswith("cluster-a/node-1")
    assert row.split()[-1] == "12"
