"""Datagrams between two nodes, through real links, firewalls and translations."""

import asyncio
import os
import subprocess
import threading
from collections.abc import Iterator

import msgspec
import pytest

from agent.explain.passing import Passing
from agent.facts import Me
from clustermesh.findings import Heard
from clustermesh.http import Refused
from tests.support.bpf import inside, netns

pytestmark = pytest.mark.root

NONCE = "0123456789abcdef"
HERE = Passing(Me("a", 1, "n", "192.0.2.1"), 8472)
THERE = Passing(Me("b", 2, "m", "192.0.2.2"), 8472)
SIZES = [56, 1500]


@pytest.fixture
def nodes() -> Iterator[tuple[str, str]]:
    names = [f"cm-test-pass{at}-{os.getpid()}" for at in (1, 2)]
    with netns(names[0]) as here, netns(names[1]) as there:
        run("ip", "-n", here, "link", "add", "eth0", "type", "veth", "peer", "eth0", "netns", there)
        for at, name in enumerate((here, there), 1):
            run("ip", "-n", name, "link", "set", "eth0", "up")
            run("ip", "-n", name, "addr", "add", f"192.0.2.{at}/24", "dev", "eth0")
        yield here, there


def run(*command: str) -> None:
    subprocess.run(command, check=True)


def nft(node: str, *rules: str) -> None:
    for rule in rules:
        run("nsenter", f"--net=/run/netns/{node}", "nft", rule)


def heard(nodes: tuple[str, str], seconds: float = 1.0) -> list[Heard]:
    """What the second node hears of the first; both sizes are enough."""
    found: list[Heard] = []
    ready = threading.Event()

    async def listen() -> None:
        lines = await THERE.hear({"nonce": NONCE, "seconds": str(seconds)})
        async for line in lines:
            one = msgspec.json.decode(line, type=Heard)
            ready.set()
            if one.sender:
                found.append(one)
            if {it.size for it in found} >= set(SIZES):
                return

    async def call() -> None:
        question = {"nonce": NONCE, "addresses": "192.0.2.2", "size": "1500"}
        (told,) = await HERE.call(question)
        assert told.error == ""

    listener = threading.Thread(target=inside, args=(lambda: asyncio.run(listen()),), kwargs={
        "namespace": nodes[1]})  # fmt: skip
    listener.start()
    assert ready.wait(20)
    inside(lambda: asyncio.run(call()), namespace=nodes[0])
    listener.join(30)
    return found


def test_a_free_way_carries_small_and_large(nodes: tuple[str, str]):
    found = heard(nodes, 30.0)
    assert {(it.sender, it.source) for it in found} == {("a/n", "192.0.2.1")}
    assert sorted({it.size for it in found}) == SIZES


def test_a_firewall_keeps_all_out(nodes: tuple[str, str]):
    nft(
        nodes[1],
        "add table inet f",
        "add chain inet f in { type filter hook input priority 0; }",
        "add rule inet f in udp dport 8472 drop",
    )
    assert heard(nodes) == []


def test_a_narrow_way_keeps_large_ones_out(nodes: tuple[str, str]):
    run("ip", "-n", nodes[1], "link", "set", "eth0", "mtu", "1400")
    assert {it.size for it in heard(nodes)} == {SIZES[0]}


def test_a_translation_shows_itself(nodes: tuple[str, str]):
    run("ip", "-n", nodes[0], "addr", "add", "192.0.2.77/24", "dev", "eth0")
    nft(
        nodes[0],
        "add table ip t",
        "add chain ip t out { type nat hook postrouting priority 100; }",
        "add rule ip t out udp dport 8472 snat to 192.0.2.77",
    )
    assert {it.source for it in heard(nodes, 30.0)} == {"192.0.2.77"}


@pytest.mark.parametrize("query", [{}, {"nonce": "short"}, {"nonce": NONCE, "seconds": "x"}])
def test_what_is_no_question_is_refused(query: dict[str, str]):
    with pytest.raises(Refused, match="expected"):
        asyncio.run(THERE.hear(query))
