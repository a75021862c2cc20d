"""What is made of datagrams that nodes heard, and how they are asked."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from clustermesh.findings import Called, Finding, Heard, Result, Underlay
from clustermesh.meshctl import passing
from clustermesh.meshctl.passing import Ear, Station, judged
from tests.support.agents import agent

A = Station("a/n", "a", "unix:/a", Underlay(node_ip="192.0.2.1", port=8472, mtu=1450))
B = Station("b/n", "b", "unix:/b", Underlay(node_ip="192.0.2.2", port=8472, mtu=1450))
SMALL = Heard(sender="a/n", source="192.0.2.1", size=60)
LARGE = Heard(sender="a/n", source="192.0.2.1", size=1500)


def one(*heard: Heard, why: str = "", error: str = "") -> Finding:
    (found,) = judged([A], [B], {"b/n": Ear(heard, why)}, {"a/n": {"192.0.2.2": error}})
    assert bool(found.fix) is (found.result is not Result.OK)
    assert found.where in ("a to b", "a/n to b/n")
    return found


def test_both_sizes_arrive():
    assert one(SMALL, LARGE).code == "UDP"


def test_nothing_arrives():
    found = one()
    assert (found.code, found.result) == ("UDP_BLOCKED", Result.FAILED)
    assert "192.0.2.2, UDP 8472" in found.seen
    assert "unreachable" in one(error="network is unreachable").seen


def test_only_small_packets_arrive():
    assert one(SMALL).code == "MTU_PATH"
    assert "1500 bytes" in one(SMALL).seen


def test_packets_come_from_a_translated_address():
    found = one(Heard(sender="a/n", source="203.0.113.9", size=1500))
    assert found.code == "UDP_TRANSLATED"
    assert "203.0.113.9" in found.seen


def test_those_who_cannot_listen_are_untried_with_the_reason():
    found = one(why="answers 403")
    assert (found.code, found.result, found.seen) == ("UDP_UNTRIED", Result.WARNING, "answers 403")


@pytest.fixture
def stations(tmp_path: Path) -> Iterator[list[Station]]:
    refusing = {"/v1/passing/call": [Called(address="192.0.2.2", error="no route")]}
    with agent(tmp_path / "a", refusing) as a, agent(tmp_path / "b", {}) as b:
        yield [A._replace(agent=a), B._replace(agent=b)]


def test_agents_that_refuse_to_listen_are_asked_once(stations: list[Station]):
    ears, calls = passing.listen_and_call(stations)
    assert "answers 404" in ears["b/n"].why
    assert calls["a/n"] == {"192.0.2.2": "no route"}
    assert "answers 404" in calls["b/n"]["192.0.2.1"]
