"""The same stories on real maps: what the kernel holds is what memory held."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest

from agent.facts import LocalKind
from bpf.datapath import Maps, load
from bpf.specs import DatapathSettings
from clustermesh.keys import Kind
from clustermesh.local import Frontend
from tests.support import lb
from tests.support.bpf import private_bpffs
from tests.support.mesh import OWN, VIP, Agent, node, offer, pod, service

A1, B1, B2 = "10.1.0.1", "10.2.0.1", "10.2.0.2"
ROOM = replace(DatapathSettings.small(), table_size=251)


@pytest.fixture
def maps(tmp_path: Path) -> Iterator[Maps]:
    with private_bpffs(tmp_path / "bpf") as folder, load(folder / "cm", ROOM) as datapath:
        yield datapath.maps


def everything(agent: Agent, *, services: int = 1) -> Agent:
    locals_ = [
        service(
            A1,
            name=f"web{n}",
            frontends=(Frontend(f"10.96.{n // 250}.{n % 250}", 80, "http", "TCP"),),
            session_affinity_seconds=60,
        )
        for n in range(services)
    ]
    agent.expect("cluster-b").local(*locals_).synced(OWN)
    agent.nodes(node("cluster-b", "b1", "192.168.0.2", "10.2.0.0/24", "10.2.0.254"))
    agent.pods("cluster-b", pod(B1, "192.168.0.2", 2 << 16 | 7))
    agent.remote(*(offer("cluster-b", B1, name=f"web{n}") for n in range(services)))
    return agent.synced("cluster-b")


def dump(maps: Maps) -> dict[str, object]:
    """Every entry, read from the kernel."""
    found: dict[str, object] = {}
    for field in fields(maps):
        target = getattr(maps, field.name)
        if hasattr(target, "items"):
            found[field.name] = dict(target.items())
        elif hasattr(target, "table_size"):
            found[field.name] = {key: target.read(key) for key in list(target.keys())}
    return found


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0.001)


async def running(agent: Agent, story: Callable[[], object]) -> None:
    """The story, while the data plane writes."""
    async with asyncio.TaskGroup() as tasks:
        writer = tasks.create_task(agent.dataplane.run())
        await story()  # type: ignore[misc]
        writer.cancel()


async def test_changes_reach_the_kernel(maps: Maps) -> None:
    agent = Agent(maps)

    async def story() -> None:
        everything(agent)
        await until(lambda: lb.where(maps, "10.96.0.0", 80) == {f"{A1}:8080", f"{B1}:8080"})
        assert lb.identity(maps, B1) == (2 << 16 | 7, "192.168.0.2")
        agent.remote(offer("cluster-b", B2, name="web0"))
        await until(lambda: lb.where(maps, "10.96.0.0", 80) == {f"{A1}:8080", f"{B2}:8080"})
        agent.tell(OWN, LocalKind.SERVICES, {"shop/web0": None})
        await until(lambda: lb.where(maps, "10.96.0.0", 80) is None)
        agent.dataplane.drain("cluster-b")
        await until(lambda: lb.identity(maps, B1) is None)
        await until(lambda: not dump(maps)["backends4"])

    await running(agent, story)
    left = {name: entries for name, entries in dump(maps).items() if entries}
    assert left == {}


async def test_a_restart_with_right_maps_writes_nothing(maps: Maps) -> None:
    first = Agent(maps)

    async def fill() -> None:
        everything(first, services=300)
        await until(lambda: first.dataplane.idle)

    await running(first, fill)
    before = dump(maps)
    assert len(before["services4"]) == 300 * 3  # type: ignore[arg-type]
    assert len(before["tables4"]) == 300  # type: ignore[arg-type]
    second = Agent(maps)

    async def again() -> None:
        everything(second, services=300)
        await until(lambda: second.dataplane.idle)

    await running(second, again)
    assert second.dataplane.map_writes == 0
    assert dump(maps) == before
    assert lb.broken_references(maps) == []


async def test_a_burst_of_changes_ends_where_the_facts_end(maps: Maps) -> None:
    agent = Agent(maps)

    async def story() -> None:
        everything(agent, services=20)
        for turn in range(60):
            backends = [f"10.2.0.{n}" for n in range(1, 2 + turn % 5)]
            agent.remote(*(offer("cluster-b", *backends, name=f"web{n}") for n in range(turn % 20)))
            await asyncio.sleep(0)
        agent.remote(*(offer("cluster-b", B2, name=f"web{n}") for n in range(20)))
        await until(lambda: agent.dataplane.idle)

    await running(agent, story)
    for n in range(20):
        assert lb.where(maps, f"10.96.0.{n}", 80) == {f"{A1}:8080", f"{B2}:8080"}
    assert lb.broken_references(maps) == []
    assert len(dump(maps)["backends4"]) == 2  # type: ignore[arg-type]


async def test_a_full_map_is_said_and_stops_nobody_else(tmp_path: Path) -> None:
    small = replace(ROOM, backends=4)
    with private_bpffs(tmp_path / "bpf") as folder, load(folder / "cm", small) as datapath:
        agent = Agent(datapath.maps)
        big = service(*(f"10.1.0.{n}" for n in range(1, 9)), name="big")
        web = service(A1, name="web", frontends=(Frontend("10.96.0.2", 80, "http", "TCP"),))

        async def story() -> None:
            agent.expect().local(big, web).synced(OWN)
            await until(lambda: lb.where(datapath.maps, "10.96.0.2", 80) == {f"{A1}:8080"})
            await until(lambda: bool(agent.dataplane.trouble()))
            assert "cilium_lb4_backends_v3 is full" in agent.dataplane.trouble()[0]
            assert lb.where(datapath.maps, VIP, 80) is None
            agent.local(service("10.1.0.1", "10.1.0.2", name="big"))
            await until(lambda: lb.where(datapath.maps, VIP, 80) is not None)
            await until(lambda: agent.dataplane.trouble() == [])

        await running(agent, story)
        assert lb.broken_references(datapath.maps) == []


async def test_an_overfull_ipcache_keeps_what_fits(tmp_path: Path) -> None:
    small = replace(ROOM, ipcache=64)
    with private_bpffs(tmp_path / "bpf") as folder, load(folder / "cm", small) as datapath:
        agent = Agent(datapath.maps)
        entries = [pod(f"10.2.1.{n}", "192.168.0.2", 2 << 16 | n) for n in range(1, 101)]

        async def story() -> None:
            agent.expect("cluster-b").pods("cluster-b", *entries)
            await until(lambda: len(dict(datapath.maps.ipcache.items())) == 64)
            await until(lambda: bool(agent.dataplane.trouble()))
            assert "cilium_ipcache is full: 36 entries" in agent.dataplane.trouble()[0]
            gone = dict.fromkeys(entry.ip for entry in entries[:40])
            agent.tell("cluster-b", Kind.IPS, gone)
            await until(lambda: agent.dataplane.trouble() == [])
            await until(lambda: len(dict(datapath.maps.ipcache.items())) == 60)

        await running(agent, story)
        assert lb.identity(datapath.maps, "10.2.1.100") == (2 << 16 | 100, "192.168.0.2")
