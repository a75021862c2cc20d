"""End-to-end checks, with agents that say what a test wants."""

from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import pytest

from clustermesh import meshfile
from clustermesh.audit import AuditReport
from clustermesh.findings import Knocked, ProbeAnswer
from clustermesh.meshctl.verify import render, run
from clustermesh.status import AgentStatus, BackendStatus, RemoteStatus, ServiceStatus
from tests.support.agents import agent

REMOTE = RemoteStatus(name="b", ready=True, connected=True, heartbeat_age=3.0)
STATUS = AgentStatus(
    node="n1",
    cluster="a",
    cluster_id=1,
    version="1",
    ready=True,
    started=0.0,
    own=RemoteStatus(name="a", ready=True),
    remotes=(REMOTE,),
)
SERVICE = ServiceStatus(
    id=1,
    namespace="d",
    name="s",
    frontend="10.101.0.10:80/TCP",
    is_global=True,
    backends=(
        BackendStatus(id=1, address="10.2.1.10:8080", cluster="b"),
        BackendStatus(id=2, address="10.2.1.11:8080", cluster="b", used=False, why="drained"),
    ),
)
GUARDED = msgspec.structs.replace(
    SERVICE, frontend="192.0.2.80:80/TCP", source_ranges=("203.0.113.0/24",)
)
AUDIT = AuditReport(
    cluster="a", node="n1", at=0.0, took=0.0, rounds=1, revisions={}, entries={"x": 3}
)


def knocked(_: str, body: bytes) -> list[Knocked]:
    targets = msgspec.json.decode(body, type=dict[str, str])["targets"].split(",")
    return [Knocked(target=it, seconds=0.001) for it in targets]


GOOD = {
    "/v1/status": STATUS,
    "/v1/probes/now": [ProbeAnswer(address="10.2.1.1", rtt=0.001)],
    "/v1/services": [SERVICE, GUARDED],
    "/v1/knock": knocked,
    "/v1/audit": AUDIT,
}


@contextmanager
def mesh(folder: Path, *agents: dict[str, object]):
    with ExitStack() as stack:
        nodes = tuple(
            meshfile.Node(name=f"n{at}", agent=stack.enter_context(agent(folder / f"{at}", it)))
            for at, it in enumerate(agents, 1)
        )
        cluster = meshfile.Cluster(
            name="a", id=1, endpoints=(), ca_cert=folder, ca_key=folder, config_dir=folder,
            users_file=folder, nodes=nodes,
        )  # fmt: skip
        yield meshfile.Mesh(clusters=(cluster,))


def test_every_node_is_checked_through_its_own_data_path(tmp_path: Path):
    with mesh(tmp_path, GOOD, GOOD) as both:
        found = run(both)
    assert found.ok
    assert {it.suite for it in found.checks} == {"a/n1", "a/n2"}
    names = [it.name for it in found.checks if it.suite == "a/n1"]
    assert "service 10.101.0.10:80 (d/s) answers" in names
    assert "backend 10.2.1.10:8080 answers" in names
    assert not any("192.0.2.80" in name for name in names)  # it serves others, elsewhere
    assert not any("10.2.1.11" in name for name in names)  # it is not used
    assert "FAILED" not in render(found.checks)


def test_services_of_udp_are_tried_with_a_datagram(tmp_path: Path):
    dns = msgspec.structs.replace(SERVICE, frontend="10.101.0.53:53/UDP", name="dns")

    def knocks(_: str, body: bytes) -> list[Knocked]:
        targets = msgspec.json.decode(body, type=dict[str, str])["targets"].split(",")
        refused = "Connection refused" if "10.2.1.10:8080/UDP" in targets else ""
        return [Knocked(target=it, error=refused) for it in targets]

    with mesh(tmp_path, {**GOOD, "/v1/services": [dns], "/v1/knock": knocks}) as one:
        found = run(one)
    by = {it.name: it for it in found.checks}
    service = by["service 10.101.0.53:53/UDP (d/dns) answers"]
    assert (service.failure, service.said) == ("", "not refused")
    assert by["backend 10.2.1.10:8080/UDP answers"].failure == "Connection refused"


def ill(remote: RemoteStatus = REMOTE, **what: object) -> AgentStatus:
    return msgspec.structs.replace(STATUS, remotes=(remote,), **what)


@pytest.mark.parametrize(
    ("path", "value", "check", "said"),
    [
        ("/v1/status", ill(ready=False, trouble=("no etcd",)), "the agent is ready", "no etcd"),
        (
            "/v1/status",
            ill(msgspec.structs.replace(REMOTE, ready=False, status="refused")),
            "b is synced",
            "refused",
        ),
        (
            "/v1/status",
            ill(msgspec.structs.replace(REMOTE, heartbeat_age=500.0)),
            "b is synced",
            "no heartbeat for 500 s",
        ),
        ("/v1/probes/now", [], "nodes of b answer", "none of its nodes"),
        (
            "/v1/probes/now",
            [ProbeAnswer(address="10.2.1.1", rtt=None)],
            "nodes of b answer",
            "no answer through the overlay from 10.2.1.1",
        ),
        (
            "/v1/knock",
            [Knocked(target="10.101.0.10:80", error="Connection refused")],
            "service 10.101.0.10:80 (d/s) answers",
            "Connection refused",
        ),
        ("/v1/knock", None, "backend 10.2.1.10:8080 answers", "answers 404"),
        (
            "/v1/audit",
            msgspec.structs.replace(AUDIT, unaudited=("b does not answer",)),
            "the maps are what the etcds say",
            "b does not answer",
        ),
        ("/v1/services", None, "services are told", "answers 404"),
    ],
)
def test_what_fails_is_named(tmp_path: Path, path: str, value: object, check: str, said: str):
    with mesh(tmp_path, {**GOOD, path: value}) as one:
        found = run(one)
    assert not found.ok
    (case,) = [it for it in found.checks if it.name == check]
    assert said in case.failure
    assert "FAILED" in render(found.checks)


def test_a_silent_agent_is_one_failure(tmp_path: Path):
    with mesh(tmp_path, GOOD) as one:
        pass
    found = run(one)
    assert [it.name for it in found.checks] == ["the agent is ready"]
    assert "does not answer" in found.checks[0].failure


def test_nothing_to_check_is_not_well(tmp_path: Path):
    with mesh(tmp_path) as empty:
        assert not run(empty).ok


def test_the_audit_may_be_left_out(tmp_path: Path):
    with mesh(tmp_path, {**GOOD, "/v1/audit": None}) as one:
        assert run(one, audit=False).ok
