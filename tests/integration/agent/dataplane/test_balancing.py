"""The agent's part of balancing packets: devices that come and go, connections that end."""

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from agent.balancing import SLICE, Balancing
from bpf.balancer import Balancer
from bpf.datapath import load
from bpf.layout_ct import SERVICE, ConnectionBits, ConnectionKey, ConnectionValue
from bpf.specs import DatapathSettings
from tests.support.bpf import inside, netns, private_bpffs

pytestmark = pytest.mark.root

NOW = 50_000


@pytest.fixture
def balancer(tmp_path: Path) -> Iterator[Balancer]:
    with (
        private_bpffs(tmp_path / "bpf") as bpffs,
        load(bpffs / "clustermesh", DatapathSettings.small(16_384)) as datapath,
        datapath.balancer() as made,
    ):
        yield made


def entry(number: int, lifetime: int, *, size: int) -> tuple[bytes, bytes]:
    raw = number.to_bytes(size, "big")
    key = ConnectionKey(raw, raw, number & 0xFFFF, 80, 6, SERVICE)
    return key.pack(), ConnectionValue(bytes(16), 1, 60, lifetime, ConnectionBits(0), 7).pack()


def fill(balancer: Balancer, *, ended: int, live: int) -> None:
    for table in balancer.connections:
        size = 16 if table.name.endswith("6_global") else 4
        table.put_many(
            [entry(n, NOW - 1 - n, size=size) for n in range(ended)]
            + [entry(ended + n, NOW + n, size=size) for n in range(live)]
        )


def test_what_has_outlived_its_time_is_forgotten_and_nothing_else(balancer: Balancer):
    fill(balancer, ended=SLICE + 50, live=SLICE + 7)
    balancing = Balancing(balancer, [], interval=1.0, clock=lambda: NOW + 0.5)
    assert asyncio.run(balancing.collect()) == 4 * (SLICE + 50)
    for table in balancer.connections:
        lifetimes = [ConnectionValue.unpack(value).lifetime for _, value in table.items()]
        assert len(lifetimes) == SLICE + 7
        assert min(lifetimes) == NOW
    assert asyncio.run(balancing.collect()) == 0


def test_others_have_their_turn_during_a_walk(balancer: Balancer):
    fill(balancer, ended=0, live=12_000)
    balancing = Balancing(balancer, [], interval=1.0, clock=lambda: NOW)

    async def turns() -> int:
        walk = asyncio.create_task(balancing.collect())
        count = 0
        while not walk.done():
            count += 1
            await asyncio.sleep(0)
        return count

    assert asyncio.run(turns()) >= 4 * (12_000 // SLICE)


class Renewed:
    """A map in which a packet renews an entry between the walk and its end."""

    def __init__(self, inner, key: bytes, value: bytes) -> None:
        self._inner = inner
        self._late = (key, value)

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        yield from list(self._inner.items())
        self._inner.put_many([self._late])


def test_a_connection_that_goes_on_meanwhile_stays(balancer: Balancer):
    fill(balancer, ended=2, live=0)
    table = balancer.connections[0]
    key, value = entry(0, NOW + 100, size=4)
    balancer.connections = (Renewed(table, key, value),)  # type: ignore[assignment]
    asyncio.run(Balancing(balancer, [], interval=1.0, clock=lambda: NOW).collect())
    assert dict(table.items()) == {key: value}
    balancer.connections = (table,)


def test_what_was_found_is_told(balancer: Balancer):
    fill(balancer, ended=3, live=5)
    balancing = Balancing(balancer, [], interval=1.0, clock=lambda: NOW)
    asyncio.run(balancing.collect())

    class Collector:
        collect = staticmethod(balancing.families)

    registry = CollectorRegistry()
    registry.register(Collector())  # type: ignore[arg-type]  # a collector by shape
    text = generate_latest(registry).decode()
    name = "clustermesh_agent_datapath_connections"
    assert f'{name}{{map="cilium_ct4_global"}} 5.0' in text
    assert f'{name}_max{{map="cilium_ct_any6_global"}} 16384.0' in text
    assert f"{name}_expired_total 12.0" in text


def test_walks_go_on_by_themselves(balancer: Balancer):
    balancing = Balancing(balancer, [], interval=0.01, clock=lambda: NOW)

    async def forgotten() -> None:
        task = asyncio.create_task(balancing.run())
        async with asyncio.timeout(20):
            for _ in range(2):
                fill(balancer, ended=1, live=0)
                while list(balancer.connections[3].items()):  # noqa: ASYNC110  # a map tells nobody
                    await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(forgotten())


def test_devices_are_taken_as_they_come_and_refused_with_a_reason(balancer: Balancer):
    place = f"cm-test-{os.getpid()}-devices"
    balancing = Balancing(balancer, ["uplink", "lo"], interval=1.0, clock=time.monotonic)
    words = ["link", "add", "uplink", "type", "veth", "peer", "name", "other"]
    with netns(place):
        inside(balancing.attach, namespace=place)
        assert balancing.trouble() == [
            "services are not balanced on uplink: no interface with this name",
            "services are not balanced on lo: it has no Ethernet header",
        ]
        subprocess.run(["ip", "-n", place, *words], check=True)
        assert inside(balancing.attach, namespace=place) is True
        assert inside(balancing.attach, namespace=place) is False
        assert len(balancing.trouble()) == 1
        subprocess.run(["ip", "-n", place, "link", "del", "uplink"], check=True)
        subprocess.run(["ip", "-n", place, *words], check=True)
        assert inside(balancing.attach, namespace=place) is True  # its name is there, it is another
