"""The writer at work: it writes when told, survives maps that refuse, and owes nobody anything."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from agent.facts import LocalKind
from agent.services.ids import Ids
from bpf.datapath import Maps, maps_in_memory
from bpf.errors import MapCallError
from bpf.maps import DictTables
from bpf.specs import DatapathSettings
from clustermesh.keys import Kind
from clustermesh.local import Frontend
from tests.support import lb
from tests.support.bpf import FaultyMap
from tests.support.mesh import OWN, VIP, Agent, backend, garbage, node, offer, pod, service

A1, A2, B1 = "10.1.0.1", "10.1.0.2", "10.2.0.1"
REFUSED = MapCallError("cilium_x", "writing", OSError(1, "not permitted"))


def maps(**more: object) -> Maps:
    made = maps_in_memory(replace(DatapathSettings.small(), table_size=251))
    return replace(made, **more)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110 - maps tell nobody
            await asyncio.sleep(0.001)


async def running(agent: Agent, story: Callable[[], Awaitable[None]]) -> None:
    async with asyncio.TaskGroup() as tasks:
        writer = tasks.create_task(agent.dataplane.run())
        await story()
        writer.cancel()


def other(name: str, vip: str, *addresses: str) -> object:
    return service(*addresses, name=name, frontends=(Frontend(vip, 80, "http", "TCP"),))


async def test_a_change_is_written_without_being_asked_for() -> None:
    agent = Agent(maps())

    async def story() -> None:
        agent.expect().local(service(A1)).synced(OWN)
        await until(lambda: lb.where(agent.maps, VIP, 80) == {f"{A1}:8080"})
        agent.local(service(A2))
        await until(lambda: lb.where(agent.maps, VIP, 80) == {f"{A2}:8080"})
        await until(lambda: agent.dataplane.idle)
        assert garbage(agent.maps) == []

    await running(agent, story)


async def test_a_little_is_written_before_its_teller_goes_on() -> None:
    agent = Agent(maps()).expect("cluster-b").synced(OWN, "cluster-b")

    async def story() -> None:
        written: list[float] = []
        agent.dataplane.on_written = lambda: written.append(1)
        await until(lambda: bool(written))
        await asyncio.sleep(0)
        agent.pods("cluster-b", pod(B1, "192.168.0.2", 2 << 16 | 7))
        assert lb.identity(agent.maps, B1) == (2 << 16 | 7, "192.168.0.2")
        assert len(written) == 2
        agent.pods("cluster-b", *(pod(f"10.2.1.{n}", "192.168.0.2", 2 << 16) for n in range(99)))
        assert lb.identity(agent.maps, "10.2.1.1") is None, "much is left to the writer"
        await until(lambda: agent.dataplane.idle)
        assert lb.identity(agent.maps, "10.2.1.1") == (2 << 16, "192.168.0.2")

    await running(agent, story)


async def test_routes_are_told_when_they_change() -> None:
    agent, told = Agent(maps()), []
    agent.dataplane.on_routes = lambda: told.append(set(agent.dataplane.routes()))

    async def story() -> None:
        first, second = (
            node("cluster-b", f"b{n}", f"192.168.0.{n}", f"10.2.{n}.0/24") for n in (2, 3)
        )
        agent.expect("cluster-b").nodes(first)
        await until(lambda: agent.dataplane.written)
        assert told == []  # a first list is judged as a whole
        agent.synced("cluster-b", kinds=[Kind.NODES])
        await until(lambda: bool(told) and len(told[-1]) == 1)
        agent.nodes(second)
        await until(lambda: len(told[-1]) == 2)
        agent.dataplane.drain("cluster-b")
        await until(lambda: told[-1] == set())

    await running(agent, story)


@pytest.mark.parametrize("where", ["backends4", "services4", "reverse_nat4"])
async def test_a_service_that_is_refused_is_tried_again_and_stops_no_other(where: str) -> None:
    faulty = FaultyMap(getattr(maps(), where))
    agent = Agent(maps(**{where: faulty}))

    async def story() -> None:
        faulty.refuse(REFUSED, REFUSED, REFUSED)
        agent.expect().local(service(A1), other("api", "10.96.0.2", A2)).synced(OWN)
        await until(lambda: lb.where(agent.maps, VIP, 80) == {f"{A1}:8080"})
        await until(lambda: lb.where(agent.maps, "10.96.0.2", 80) == {f"{A2}:8080"})
        await until(lambda: agent.dataplane.trouble() == [])
        assert lb.broken_references(agent.maps) == []
        assert garbage(agent.maps) == []

    await running(agent, story)


async def test_a_service_that_no_map_can_hold_stops_no_other() -> None:
    """What is read from the etcds is checked; this is for what nobody thought of."""
    agent = Agent(maps())

    async def story() -> None:
        agent.expect().local(service(A1), other("api", "10.96.0.2", A2)).synced(OWN)
        await until(lambda: lb.where(agent.maps, VIP, 80) == {f"{A1}:8080"})
        agent.local(service(A2, session_affinity_seconds=-5), other("api", "10.96.0.2", A1))
        await until(lambda: lb.where(agent.maps, "10.96.0.2", 80) == {f"{A1}:8080"})
        await until(lambda: bool(agent.dataplane.trouble()))
        assert "service shop/web: internal error" in agent.dataplane.trouble()[0]
        assert lb.where(agent.maps, VIP, 80) == {f"{A1}:8080"}
        agent.local(service(A2))
        await until(lambda: lb.where(agent.maps, VIP, 80) == {f"{A2}:8080"})
        await until(lambda: agent.dataplane.trouble() == [])
        assert lb.broken_references(agent.maps) == []
        assert garbage(agent.maps) == []

    await running(agent, story)


class RefusingTables(DictTables):
    """Tables that refuse a number of updates."""

    faults = 0

    def swap_many(self, tables: object) -> None:
        if self.faults:
            self.faults -= 1
            raise REFUSED
        super().swap_many(tables)  # type: ignore[arg-type]


async def test_a_table_that_is_refused_leaves_the_slots_and_is_tried_again() -> None:
    tables = RefusingTables("cilium_lb4_maglev", table_size=251 * 4, max_entries=100)
    agent = Agent(maps(tables4=tables))

    async def story() -> None:
        tables.faults = 2
        agent.expect().local(service(A1)).synced(OWN)
        await until(lambda: bool(agent.dataplane.trouble()))
        assert "service shop/web: map cilium_x: writing failed" in agent.dataplane.trouble()[0]
        assert lb.where(agent.maps, VIP, 80) == {f"{A1}:8080"}
        await until(lambda: agent.dataplane.trouble() == [])
        assert len(list(tables.keys())) == 1
        tables.faults = 2
        agent.local(service(A2))
        await until(lambda: bool(agent.dataplane.trouble()))
        assert lb.broken_references(agent.maps) == []
        await until(lambda: agent.dataplane.trouble() == [])
        assert lb.where(agent.maps, VIP, 80) == {f"{A2}:8080"}
        assert garbage(agent.maps) == []

    await running(agent, story)


async def test_a_removal_that_is_refused_is_tried_again() -> None:
    faulty = FaultyMap(maps().services4)
    agent = Agent(maps(services4=faulty))

    async def story() -> None:
        agent.expect().local(service(A1)).synced(OWN)
        await until(lambda: agent.dataplane.idle)
        faulty.refuse(REFUSED)
        agent.tell(OWN, LocalKind.SERVICES, {"shop/web": None})
        await until(lambda: lb.where(agent.maps, VIP, 80) is None)
        await until(lambda: garbage(agent.maps) == [])
        await until(lambda: agent.dataplane.trouble() == [])

    await running(agent, story)


async def test_addresses_that_are_refused_are_tried_again() -> None:
    faulty = FaultyMap(maps().ipcache)
    agent = Agent(maps(ipcache=faulty))

    async def story() -> None:
        faulty.refuse(REFUSED)
        agent.expect("cluster-b").pods("cluster-b", pod(B1, "192.168.0.2", 131080))
        await until(lambda: bool(agent.dataplane.trouble()))
        assert "map cilium_x: writing failed: not permitted" in agent.dataplane.trouble()[0]
        await until(lambda: lb.identity(agent.maps, B1) == (131080, "192.168.0.2"))
        await until(lambda: agent.dataplane.trouble() == [])

    await running(agent, story)


async def test_a_route_is_told_though_its_entry_was_refused_at_first() -> None:
    faulty, told = FaultyMap(maps().ipcache), [set[str]()]
    agent = Agent(maps(ipcache=faulty))
    agent.dataplane.on_routes = lambda: told.append(set(agent.dataplane.routes()))

    async def story() -> None:
        agent.expect("cluster-b").synced("cluster-b", kinds=[Kind.NODES])
        await until(lambda: len(told) == 2)
        faulty.refuse(REFUSED)
        agent.pods("cluster-b", pod(B1, "192.168.0.2", 131080))
        await until(lambda: told[-1] == {f"{B1}/32"})

    await running(agent, story)


async def test_a_service_for_which_there_is_no_number_says_so_until_there_is_one() -> None:
    agent = Agent(maps())
    agent.dataplane._services.programs._ids = Ids(1, 1)

    async def story() -> None:
        agent.expect().local(service(A1)).synced(OWN)
        await until(lambda: lb.where(agent.maps, VIP, 80) == {f"{A1}:8080"})
        agent.local(other("api", "10.96.0.2", A2))  # type: ignore[arg-type]
        await until(lambda: bool(agent.dataplane.trouble()))
        assert agent.dataplane.trouble() == ["service shop/api: all of the 1 ids from 1 are taken"]
        assert lb.where(agent.maps, VIP, 80) == {f"{A1}:8080"}
        agent.tell(OWN, LocalKind.SERVICES, {"shop/web": None})
        await until(lambda: lb.where(agent.maps, "10.96.0.2", 80) == {f"{A2}:8080"})
        await until(lambda: agent.dataplane.trouble() == [])

    await running(agent, story)


async def test_a_torrent_for_one_service_does_not_hold_up_another() -> None:
    agent = Agent(maps())

    async def story() -> None:
        agent.expect("cluster-b").synced(OWN, "cluster-b")
        for n in range(300):
            agent.local(service(*(f"10.1.0.{m}" for m in range(1, 2 + n % 9))))
            if n == 150:
                agent.local(other("api", "10.96.0.2", A2))  # type: ignore[arg-type]
            await asyncio.sleep(0)
        await until(lambda: lb.where(agent.maps, "10.96.0.2", 80) == {f"{A2}:8080"})
        agent.local(service(A1))
        await until(lambda: agent.dataplane.idle)
        assert lb.where(agent.maps, VIP, 80) == {f"{A1}:8080"}
        assert garbage(agent.maps) == []

    await running(agent, story)


async def test_remote_backends_arrive_while_a_table_is_being_replaced() -> None:
    agent = Agent(maps())

    async def story() -> None:
        agent.expect("cluster-b").local(service(A1, backend(A2))).synced(OWN)
        agent.remote(offer("cluster-b", B1)).synced("cluster-b")
        await until(lambda: agent.dataplane.idle)
        for n in range(1, 60):
            agent.remote(offer("cluster-b", *(f"10.2.0.{m}" for m in range(1, 1 + n % 7))))
            await asyncio.sleep(0.0005)
        agent.remote(offer("cluster-b", B1))
        await until(lambda: agent.dataplane.idle)
        assert lb.where(agent.maps, VIP, 80) == {f"{A1}:8080", f"{A2}:8080", f"{B1}:8080"}
        assert garbage(agent.maps) == []

    await running(agent, story)
