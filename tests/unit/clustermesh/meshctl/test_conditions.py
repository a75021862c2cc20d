"""Clocks, kernels, ports and sizes of two clusters, provoked value by value."""

from typing import Any

import msgspec
import pytest

from clustermesh.findings import Finding, Premises, Result, Underlay
from clustermesh.meshctl import conditions, plan
from clustermesh.meshctl.premises import Side
from clustermesh.meshfile import Node
from tests.support.agents import agent
from tests.unit.clustermesh.meshctl.test_premises import side as plain

GOOD = Underlay(node_ip="172.30.1.11", port=8472, device_port=8472, mtu=1450, underlay_mtu=1500)


def side(letter: str, number: int, **changes: Any) -> Side:
    underlay = msgspec.structs.replace(GOOD, **changes.pop("underlay", {}))
    made = plain(letter, number, kernel="6.1.0", underlay=underlay, **changes)
    endpoints = (f"https://cluster-{letter}:2379",)
    return made._replace(cluster=msgspec.structs.replace(made.cluster, endpoints=endpoints))


A = side("a", 1)


def found(*sides: Side, skews: dict[str, float] | None = None) -> list[Finding]:
    return list(conditions.judge(sides, skews or {}))


def bad(*sides: Side, **how: Any) -> list[tuple[str, Result]]:
    wrong = [it for it in found(*sides, **how) if it.result is not Result.OK]
    assert all(it.fix and it.seen for it in wrong)
    return [(it.code, it.result) for it in wrong if it.code != "PLAINTEXT"]


def test_good_clusters_have_one_warning_that_the_overlay_is_plaintext():
    assert bad(A, side("b", 2)) == []
    codes = [it.code for it in found(A, side("b", 2))]
    assert codes == ["KERNEL", "KERNEL", "TUNNEL", "MTU", "PLAINTEXT"]


@pytest.mark.parametrize(
    ("changes", "code", "result"),
    [
        ({"lacking": ("ring buffers (Linux 5.8)",)}, "KERNEL_LACKS", Result.FAILED),
        ({"node_ports_taken": ("30080/TCP of shop/cart",)}, "NODE_PORT_TAKEN", Result.FAILED),
        ({"underlay": {"port": 8473}}, "TUNNEL_PORT", Result.FAILED),
        ({"underlay": {"protocol": "geneve"}}, "TUNNEL_PROTOCOL", Result.FAILED),
        ({"underlay": {"mtu": 1400}}, "MTU_DIFFERS", Result.WARNING),
        ({"underlay": {"underlay_mtu": 1480}}, "MTU_TOO_LARGE", Result.FAILED),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], code: str, result: Result):
    assert bad(A, side("b", 2, **changes)) == [(code, result)]


def test_a_port_that_another_device_has_is_told_with_its_name():
    taken = side("b", 2, underlay={"device_port": 8473, "taken_by": "flannel.1"})
    (told,) = [it for it in found(A, taken) if it.code == "TUNNEL_PORT_TAKEN"]
    assert told.result is Result.OK
    assert "flannel.1" in told.seen
    assert "8473" in told.seen


def test_two_clusters_behind_one_address_need_two_ports():
    b = side("b", 2)
    same = msgspec.structs.replace(b.cluster, endpoints=A.cluster.endpoints)
    assert bad(A, b._replace(cluster=same)) == [("ENDPOINT_TAKEN", Result.FAILED)]


@pytest.mark.parametrize(
    ("seconds", "wrong"),
    [
        (1.0, []),
        (-30.0, [("CLOCK_SKEW", Result.WARNING)]),
        (90.0, [("CLOCK_SKEW", Result.FAILED)]),
    ],
)
def test_clocks_are_compared(seconds: float, wrong: list[tuple[str, Result]]):
    skews = {"cluster-a/node-1": 0.2, "cluster-b/node-1": seconds}
    assert bad(A, side("b", 2), skews=skews) == wrong


def test_clocks_that_agree_are_said_to():
    told = list(found(A, side("b", 2), skews={"cluster-a/node-1": 0.0, "cluster-b/node-1": 0.5}))
    assert ("CLOCKS", Result.OK) in [(it.code, it.result) for it in told]


def test_a_node_whose_answer_has_a_wrong_time_is_named(tmp_path):
    """The reply of one agent is of an hour ago; ours and the other's are right."""
    sides, skews = [], {}
    for letter, number, off in (("a", 1, 0.0), ("b", 2, -3600.0)):
        made = side(letter, number)
        (premises,) = made.heard

        def answer(_: str, __: bytes, premises=premises, off=off) -> Premises:
            return msgspec.structs.replace(premises, clock=plan.time.time() + off)

        with agent(tmp_path / letter, {"/v1/premises": answer}) as url:
            nodes = (Node(name="node-1", agent=url),)
            cluster = msgspec.structs.replace(made.cluster, nodes=nodes)
            sides.append(plan.side(cluster, skews))
    (wrong,) = [it for it in found(*sides, skews=skews) if it.code == "CLOCK_SKEW"]
    assert wrong.result is Result.FAILED
    assert wrong.where == "cluster-b/node-1 and cluster-a/node-1"
    assert "cluster-a/node-1 is 3600 s before" in wrong.seen
