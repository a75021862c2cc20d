"""Connecting proves that it works, and takes back what was new when it does not."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clustermesh.findings import Diagnosis, Finding, ProbeAnswer, Result
from clustermesh.meshctl import performing, watch
from clustermesh.meshctl.peering import Mode, Peering, exists, peerings
from clustermesh.meshfile import Cluster, Mesh, Node
from clustermesh.pki import Authority
from clustermesh.status import AgentStatus, RemoteStatus
from tests.support.agents import Answers, agent

NAMES = ("cluster-a", "cluster-b", "cluster-c")
A_B = ["cluster-a", "cluster-b"]
HOPELESS = 0.3


class World:
    """Clusters of two nodes each, whose agents notice what connecting writes."""

    def __init__(self, top: Path, stack: ExitStack) -> None:
        self.broken: set[str] = set()
        """Clusters that no probe reaches."""
        self.unsynced: set[str] = set()
        self.answers: dict[str, Answers] = {}
        self._stack = stack
        self.clusters = [self._cluster(top, name, at) for at, name in enumerate(NAMES, 1)]
        self.mesh = Mesh(clusters=tuple(self.clusters))

    def _cluster(self, top: Path, name: str, number: int) -> Cluster:
        folder = top / name
        (folder / "remotes").mkdir(parents=True)
        Authority.create(name).write(folder / "ca.crt", folder / "ca.key")
        nodes = []
        for node in ("node-1", "node-2"):
            answers = self.answers[f"{name}/{node}"] = {
                "/v1/status": lambda _, __, folder=folder, name=name: self._status(folder, name),
                "/v1/probes/now": self._probed,
                "/v1/troubleshoot": self._troubles(name, node),
            }
            url = self._stack.enter_context(agent(folder / f"{node}.sock", answers))
            nodes.append(Node(name=node, agent=url))
        return Cluster(
            name=name,
            id=number,
            endpoints=(f"https://{name}:2379",),
            ca_cert=folder / "ca.crt",
            ca_key=folder / "ca.key",
            config_dir=folder / "remotes",
            users_file=folder / "users.yaml",
            nodes=tuple(nodes),
        )

    def _status(self, folder: Path, name: str) -> AgentStatus:
        followed = sorted(it.name for it in (folder / "remotes").iterdir() if it.name in NAMES)
        return AgentStatus(
            node="n", cluster=name, cluster_id=1, version="1", ready=True, started=0,
            own=RemoteStatus(name=name),
            remotes=tuple(
                RemoteStatus(name=it, ready=it not in self.unsynced, status="etcd is away")
                for it in followed
            ),
        )  # fmt: skip

    def _probed(self, path: str, _: bytes) -> list[ProbeAnswer]:
        peer = path.partition("cluster=")[2]
        return [ProbeAnswer(address="10.0.0.1", rtt=None if peer in self.broken else 0.001)]

    def _troubles(self, cluster: str, node: str) -> Callable[[str, bytes], list[Diagnosis]]:
        cause = Finding(
            code="TCP_REFUSED", result=Result.FAILED, where="x", seen="refuses", fix="start it"
        )

        def answer(path: str, _: bytes) -> list[Diagnosis]:
            remote = path.partition("cluster=")[2]
            return [Diagnosis(cluster=cluster, node=node, remote=remote, findings=(cause,))]

        return answer

    def kill(self, node: str) -> None:
        self.answers[node].clear()

    def connect(self, names: list[str], **how: Any) -> performing.Result:
        return performing.perform(
            performing.CONNECT, self.mesh, names,
            **{"timeout": 5.0, "report": lambda _: None, **how},
        )  # fmt: skip

    def follows(self) -> set[tuple[str, str]]:
        ways = peerings(self.mesh, NAMES)
        return {(it.reader.name, it.source.name) for it in ways if exists(it)}

    def files(self) -> dict[Path, bytes]:
        top = self.clusters[0].ca_cert.parent.parent
        return {it: it.read_bytes() for it in sorted(top.rglob("*")) if it.is_file()}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(performing, "LEAST", HOPELESS)
    with ExitStack() as stack:
        yield World(tmp_path, stack)


def plain(world: World) -> dict[Path, bytes]:
    """Every file; a list of users that names nobody is none."""
    return {path: held for path, held in world.files().items() if held != b"users: []\n"}


@pytest.mark.parametrize("moment", [1, 4, 8])
def test_ctrl_c_among_the_changes_leaves_none(world: World, moment: int):
    before, said = plain(world), []

    def report(text: str) -> None:
        said.append(text)
        if len(said) == moment:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.connect(A_B, report=report)
    assert plain(world) == before


def test_what_ctrl_c_could_not_take_back_is_told(world: World, capsys: pytest.CaptureFixture[str]):
    def report(text: str) -> None:
        if text.startswith("undoing: cluster-a"):
            shutil.rmtree(world.clusters[0].config_dir, ignore_errors=True)
        if "follows" in text and not text.startswith("undoing"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.connect(A_B, report=report)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert all(it.startswith("meshctl: NOT undone, [Errno 2]") for it in said)


def test_a_second_ctrl_c_says_what_it_leaves(world: World, capsys: pytest.CaptureFixture[str]):
    done: list[str] = []

    def report(text: str) -> None:
        if "follows" in text or len(done) == 2:
            raise KeyboardInterrupt
        if text.startswith("undoing"):
            done.append(text)

    with pytest.raises(KeyboardInterrupt):
        world.connect(A_B, report=report)
    said = capsys.readouterr().err.splitlines()
    assert len(done) == 2
    assert len(said) == 4
    assert all(it.startswith("meshctl: NOT undone, interrupted: cluster-") for it in said)


def test_a_connection_that_works_is_proved_on_every_node(world: World):
    done = world.connect(A_B)
    assert done.late == []
    assert len(done.nodes) == len(done.probes) == 4
    assert {it.why for it in done.probes} == {"1 of 1 nodes answer, in 1.0 ms"}
    assert world.follows() == {("cluster-a", "cluster-b"), ("cluster-b", "cluster-a")}


@pytest.mark.parametrize(
    ("mode", "ways"),
    [
        (Mode.MESH, {"ab", "ba", "ac", "ca", "bc", "cb"}),
        (Mode.BIDIRECTIONAL, {"ab", "ba", "ac", "ca"}),
        (Mode.UNICAST, {"ab", "ac"}),
    ],
)
def test_a_mode_says_who_follows_whom(world: World, mode: Mode, ways: set[str]):
    done = world.connect(list(NAMES), mode=mode)
    assert {f"{one[-1]}{other[-1]}" for one, other in world.follows()} == ways
    assert bool(done.probes) is (mode is not Mode.UNICAST)


def test_a_pair_that_no_packet_passes_is_parted_again_with_the_cause(world: World):
    before = world.files()
    world.broken = {"cluster-b"}
    done = world.connect(A_B)
    assert [it.node for it in done.late] == ["cluster-a/node-1", "cluster-a/node-2"]
    assert "no packet comes back through the overlay from 10.0.0.1" in done.late[0].why
    assert [it.code for it in done.causes] == ["TCP_REFUSED"]
    assert sorted(done.undone) == sorted(done.changes)
    left = world.files()
    users = {it: left.pop(it) for it in list(left) if it.name == "users.yaml"}
    assert left == before
    assert set(users.values()) == {b"users: []\n"}


def test_a_pair_that_never_syncs_is_parted_again(world: World):
    world.unsynced = {"cluster-b"}
    done = world.connect(A_B, timeout=HOPELESS)
    assert world.follows() == set()
    assert done.probes == ()
    assert done.late[0].why == "etcd is away"


def test_only_the_pairs_that_do_not_work_are_parted(world: World):
    world.broken = {"cluster-c"}
    world.connect(list(NAMES))
    assert world.follows() == {("cluster-a", "cluster-b"), ("cluster-b", "cluster-a")}


def test_a_pair_that_was_connected_stays_whatever_happens(world: World):
    world.connect(A_B)
    before = world.files()
    world.broken = world.unsynced = {"cluster-b"}
    done = world.connect(A_B, timeout=HOPELESS)
    assert done.changes == done.undone == ()
    assert done.late
    assert world.files() == before


def test_what_was_mended_of_a_connected_pair_stays_mended(world: World):
    world.connect(A_B)
    world.broken = {"cluster-b"}
    trusted = world.clusters[0].config_dir / "cluster-b.etcd-client-ca.crt"
    right = trusted.read_bytes()
    trusted.write_bytes(b"wrong")
    done = world.connect(A_B)
    assert len(done.changes) == 1
    assert done.undone == ()
    assert trusted.read_bytes() == right


def test_a_pair_is_kept_on_demand(world: World):
    world.broken = {"cluster-b"}
    done = world.connect(A_B, keep=True)
    assert done.late
    assert done.undone == ()
    assert len(world.follows()) == 2


def test_a_dead_agent_is_no_reason_to_part_but_a_dead_cluster_is(world: World):
    world.kill("cluster-a/node-2")
    done = world.connect(A_B, timeout=HOPELESS)
    assert done.undone == ()
    assert [(it.node, it.reached) for it in done.late] == [("cluster-a/node-2", False)]
    world.kill("cluster-c/node-1")
    world.kill("cluster-c/node-2")
    world.connect(["cluster-a", "cluster-c"], timeout=HOPELESS)
    assert ("cluster-a", "cluster-c") not in world.follows()


def test_an_error_in_the_middle_takes_back_what_was_done(world: World):
    a, b, c = world.clusters
    nowhere = b.users_file.parent / "absent" / "users.yaml"
    world.mesh = Mesh(clusters=(a, msgspec.structs.replace(b, users_file=nowhere), c))
    with pytest.raises(OSError, match=r"."):
        world.connect(A_B)
    assert list(a.config_dir.iterdir()) == list(b.config_dir.iterdir()) == []


def test_a_peer_without_overlay_addresses_is_not_judged(world: World):
    pair = watch.pairs(world.mesh, [Peering(*world.clusters[:2])])[0]
    world.answers[pair.node]["/v1/probes/now"] = []
    outcome = watch.answering(pair)
    assert outcome.done
    assert "not probed" in outcome.why


def test_a_result_can_be_told_as_json(world: World):
    told = msgspec.json.decode(msgspec.json.encode(world.connect(A_B)))
    assert told["nodes"][0]["node"] == "cluster-a/node-1"
    assert told["undone"] == []
