"""The page about the whole mesh: pairs, folding, next steps; from values."""

import io

import msgspec
import pytest
from rich.console import Console

from clustermesh.meshctl.overview import pairs
from clustermesh.meshctl.overview.wrong import Level, steady
from clustermesh.meshctl.status import MeshStatus, render, told
from clustermesh.status import (
    AgentStatus,
    ApiserverStatus,
    Count,
    Propagation,
    RemoteStatus,
    SyncedKinds,
)

SYNCED = SyncedKinds(nodes=True, services=True, identities=True, endpoints=True)
REASON = "https://h:2379: Connection refused; trying again in {} s"


def probes(p50: float, p99: float, *, ahead: float = 0.0) -> Propagation:
    return Propagation(p50=p50, p99=p99, samples=10, missed=0, age=1.0, ahead=ahead)


def remote(name: str, **more: object) -> RemoteStatus:
    whole = {"ready": True, "connected": True, "synced": SYNCED, "rtt": 0.001, "loss": 0.0}
    return RemoteStatus(name=name, **{**whole, **more})


def agent(node: str, *remotes: RemoteStatus, **more: object) -> AgentStatus:
    cluster, name = node.split("/")
    whole = {"version": "1.0", "ready": True, "started": 0.0, "own": remote(cluster)}
    return AgentStatus(
        node=name, cluster=cluster, cluster_id=1, remotes=remotes, **{**whole, **more}
    )


def apiserver(name: str, **more: object) -> ApiserverStatus:
    whole = {"version": "1.0", "ready": True, "started": 0.0, "source": "x", "etcd": "etcd: ok"}
    return ApiserverStatus(cluster=name, cluster_id=1, **{**whole, **more})


def status(*agents: AgentStatus, **apiservers: ApiserverStatus | None) -> MeshStatus:
    return told(apiservers, {f"{it.cluster}/{it.node}": it for it in agents}, 100.0)


def page(now: MeshStatus, width: int = 120) -> str:
    console = Console(width=width, file=io.StringIO())
    for part in render(now, 100.0, nodes=False):
        console.print(part)
    return console.file.getvalue()


def broken(node: str, wait: float) -> AgentStatus:
    reason = REASON.format(wait)
    peer = remote("b", ready=False, connected=False, last_failure_reason=reason, status=reason)
    return agent(node, peer, trouble=(f"cluster b: {reason}",))


def test_a_pair_counts_nodes_and_takes_the_worst_of_them():
    found = pairs.of(
        {
            "a/1": agent("a/1", remote("b", rtt=0.001, loss=0.1, propagation=probes(0.002, 0.5))),
            "a/2": agent("a/2", remote("b", rtt=0.003, loss=0.0, propagation=probes(0.004, 0.1))),
            "a/3": None,
        }
    )
    (pair,) = [it for it in found if not it.own]
    assert (pair.nodes, pair.silent, pair.connected, pair.ready) == (3, 1, 2, 2)
    assert (pair.rtt, pair.loss, pair.p50, pair.p99) == (0.002, 0.1, 0.003, 0.5)
    assert pair.samples == 20
    assert not pair.well


def test_clocks_that_differ_are_told_and_taken_out():
    now = status(
        agent("a/1", remote("b", propagation=probes(5.010, 5.020))),
        agent("b/1", remote("a", propagation=probes(0.001, 0.011, ahead=4.991))),
    )
    there, back = (
        next(it for it in now.pairs if (it.cluster, it.remote) == key)
        for key in (("a", "b"), ("b", "a"))
    )
    assert there.clock_behind == pytest.approx(5.0)
    assert there.p50 == pytest.approx(0.010)
    assert back.p50 == pytest.approx(0.010)
    assert "the clocks of b are 5.0 s behind" in page(now)
    assert now.ready


def test_what_all_nodes_say_is_told_once_with_the_next_step():
    now = status(broken("a/1", 0.3), broken("a/2", 1.7), agent("b/1", remote("a")))
    (one,) = now.wrong
    assert one.level is Level.PROBLEM
    assert one.where() == "a (2 of 2 nodes)"
    assert one.said == "b is not ready: https://h:2379: Connection refused"
    assert one.next == "meshctl troubleshoot --node a/1 --cluster b"
    text = page(now)
    assert text.count("Connection refused") == 1
    assert "next: meshctl troubleshoot" in text


def test_of_an_apiserver_without_etcd_only_that_is_told():
    trouble = ("etcd: refused; connecting again in 1.7 s", "publisher: 1 keys: refused")
    now = status(a=apiserver("a", ready=False, trouble=trouble))
    assert [one.said for one in now.wrong] == ["apiserver: etcd: refused"]
    assert len(now.problems) == 3


def test_one_node_of_several_is_named():
    now = status(broken("a/1", 0.3), agent("a/2", remote("b")))
    assert now.wrong[0].where() == "a/1"


def test_every_line_fits_in_120_columns():
    names = ["frankfurt-prod-1", "singapore-prod-2"]
    here, there = (
        agent(f"{a}/node-1", remote(b, rtt=0.123, propagation=probes(0.0123, 1.5)))
        for a, b in (names, names[::-1])
    )
    now = status(here, there, **{name: apiserver(name) for name in names})
    assert max(len(line.rstrip()) for line in page(now, 300).splitlines()) <= 120


@pytest.mark.parametrize(
    ("changes", "said", "then"),
    [
        (
            {"trouble": ("cluster b: none of its nodes answers through the mesh; its",)},
            "none of its nodes answers",
            "meshctl plan a b",
        ),
        ({"trouble": ("3 entries of maps differ",)}, "differ", "meshctl audit --node a/1"),
        ({"ready": False}, "its agent is not ready", "meshctl troubleshoot --node a/1"),
        (
            {"maps": {"cilium_ipcache": Count(entries=95, max_entries=100)}},
            "map cilium_ipcache is nearly full (95 of 100",
            "--map-entries",
        ),
    ],
)
def test_each_thing_has_its_next_step(changes: dict[str, object], said: str, then: str):
    (one,) = status(agent("a/1", remote("b"), **changes)).wrong
    assert said in one.said
    assert then in one.next


def test_lost_probes_and_several_releases_are_warnings():
    now = status(agent("a/1", remote("b", loss=0.25)), agent("b/1", remote("a"), version="1.1"))
    assert now.ready
    assert {one.level for one in now.wrong} == {Level.WARNING}
    text = page(now)
    assert "25% of the probes to nodes of b get no answer" in text
    assert "several releases: a 1.0; b 1.1" in text


def test_a_cluster_that_is_followed_and_does_not_follow_is_named():
    """Connected one way only: that is the cause, lost probes are what comes of it."""
    a, b = agent("a/1", remote("b", loss=1.0)), agent("b/1")
    (one,) = status(a, b).wrong
    assert one.level is Level.WARNING
    assert (one.cluster, one.said) == ("a", "b does not follow it: no packet comes back from there")
    assert one.next == "meshctl connect a b"
    assert status(a, agent("b/1", remote("a"))).wrong == ()
    assert status(a).wrong == (), "nobody there can be asked: a Cilium cluster, say"
    silent = told({}, {"a/1": a, "b/1": None}, 100.0)
    assert [it.cluster for it in silent.wrong] == ["b"]


def test_a_silent_agent_and_apiserver_are_problems():
    now = told({"a": None}, {"a/1": None}, 100.0)
    assert [one.said for one in now.wrong] == [
        "its apiserver does not answer",
        "its agent does not answer",
    ]
    assert "no answer" in page(now)


def test_a_large_mesh_lists_only_what_is_not_well():
    names = [f"c{number:02}" for number in range(12)]
    agents = [agent(f"{a}/1", *(remote(b) for b in names if b != a)) for a in names]
    ill = msgspec.structs.replace(agents[0].remotes[0], ready=False, connected=False)
    first = msgspec.structs.replace(agents[0], remotes=(ill, *agents[0].remotes[1:]))
    text = page(status(first, *agents[1:]))
    assert "143 more pairs are well" in text
    assert "NODES READY WITH" not in text


def test_a_sentence_is_steady_without_its_wait():
    assert steady(REASON.format("0.42")) == "https://h:2379: Connection refused"
    assert steady("cilium/state/ip/v1/default/: " + REASON) == steady(REASON)
    assert steady("plain") == "plain"
