"""When an audit counts a difference, when it waits for it to settle, and when it says it cannot."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from agent.audit.addresses import Here
from agent.audit.auditor import Auditor, AuditSettings, Impossible, Standing
from agent.audit.ways import LOOKED_UP, RULES, TUNNEL, Present
from bpf.datapath import Maps
from bpf.layout import IpcacheKey, IpcacheValue
from clustermesh import keys, local
from clustermesh.audit import EXTRA, MISSING, WRONG
from kvstore.client import Store, Unavailable
from kvstore.config import EtcdConfig
from tests.support.mesh import (
    IDS,
    NODE,
    NODE_IP,
    OWN,
    OWN_ID,
    Agent,
    node,
    offer,
    pod,
    service,
    slice_of,
)
from tests.support.remote_world import Peer

ROUTES = {"10.2.0.0/24": TUNNEL, RULES[4]: LOOKED_UP}
STRANGER = (IpcacheKey(bytes([10, 9, 9, 9]), 32).pack(), IpcacheValue(2 << 16 | 9).pack())


class World:
    """Etcds in memory, an agent that was told the same, and the auditor between them."""

    def __init__(self, folder: Path) -> None:
        self.peers = {name: Peer(name, IDS[name]) for name in (OWN, "cluster-b")}
        self.agent = Agent().expect("cluster-b")
        self.standing = Standing("", {}, {"cluster-b": 2}, frozenset())
        self.remotes = folder / "remotes"
        self.remotes.mkdir()
        (folder / "own.yaml").write_text(f"endpoints:\n- http://{OWN}:2379\n")
        self.configure("cluster-b")
        self.rewritten: list[str] = []
        self.present: Present | None = dict(ROUTES)
        self.between: Callable[[], object] = lambda: None
        self.auditor = Auditor(
            Here(OWN, OWN_ID, NODE, NODE_IP),
            self.agent.maps,
            AuditSettings(
                own=folder / "own.yaml", remotes=self.remotes, every_service=False,
                table_size=251, interval=0.02, pauses=(0.01, 0.01),
            ),
            opener=self.open,
            standing=lambda: self.standing,
            rewrite=self.rewrite,
            routing=self,
        )  # fmt: skip

    def configure(self, cluster: str) -> None:
        (self.remotes / cluster).write_text(f"endpoints:\n- http://{cluster}:2379\n")

    def open(self, config: EtcdConfig) -> AbstractAsyncContextManager[Store]:
        return self._open(config.endpoints[0].host)

    @asynccontextmanager
    async def _open(self, host: str) -> AsyncIterator[Store]:
        self.between()
        yield self.peers[host].store

    def rewrite(self, services: object) -> None:
        self.rewritten += services  # type: ignore[operator]
        self.agent.dataplane.rewrite(services)  # type: ignore[arg-type]
        self.agent.settle()

    def read(self) -> Present | None:
        return self.present

    def mend(self) -> None:
        self.present = dict(ROUTES)

    @property
    def maps(self) -> Maps:
        return self.agent.maps

    async def fill(self) -> "World":
        """The same small mesh in the etcds and in the agent."""
        web = service("10.1.0.1")
        nodes = [
            node(OWN, NODE, NODE_IP, "10.1.0.0/24", "10.1.0.254"),
            node("cluster-b", "b1", "192.168.0.2", "10.2.0.0/24", "10.2.0.254"),
        ]
        remote = [offer("cluster-b", "10.2.0.1"), pod("10.2.0.1", "192.168.0.2", 2 << 16 | 7)]
        for each in self.peers.values():
            await each.describe()
        for fact in (*nodes, *remote):
            cluster = getattr(fact, "cluster", "cluster-b")
            await self.peers[cluster].publish(fact)
        await self.peers[OWN].put(local.key_of(web), local.encode(web))
        self.agent.nodes(*nodes).local(web).remote(remote[0]).pods("cluster-b", remote[1])
        self.agent.synced(OWN, "cluster-b").settle()
        return self


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


async def test_what_is_as_it_should_be_is_read_once(folder) -> None:
    world = await World(folder).fill()
    report = await world.auditor.audit()
    assert (report.differences, report.unaudited, report.rounds) == ((), (), 1)
    assert report.revisions["cluster-b"].keys() == {"cluster-config", "nodes", "ip", "services"}
    assert report.revisions[OWN]["local services"] == world.peers[OWN].store.revision
    assert report.entries["cilium_ipcache"] == 6
    assert world.auditor.trouble() == []


async def test_routes_are_compared_and_mended_like_maps(folder) -> None:
    world = await World(folder).fill()
    assert (await world.auditor.audit()).entries["routes"] == 2
    world.present = {"10.2.0.0/24": TUNNEL, "10.9.0.0/16": TUNNEL}
    report = await world.auditor.audit()
    assert [it.sentence() for it in report.differences] == [
        "routes: 10.9.0.0/16 should not be there: into the tunnel",
        "routes: all IPv4 packets is missing; expected look into our table",
    ]
    mended = await world.auditor.repair()
    assert (mended.mended, mended.differences) == (2, ())


async def test_before_a_network_was_asked_for_no_route_is_missed(folder) -> None:
    world = await World(folder).fill()
    world.present = None
    report = await world.auditor.audit()
    assert report.differences == ()
    assert "routes" not in report.entries


async def test_a_cluster_that_cannot_be_read_keeps_its_routes(folder) -> None:
    world = await World(folder).fill()
    world.standing = world.standing._replace(absent={"cluster-b": "its etcd is down"})
    assert (await world.auditor.audit()).differences == ()


def later(turns: int, then: Callable[[], object]) -> Callable[[], None]:
    """Does something when an etcd is opened for the n-th time."""
    opened = iter(range(1000))

    def between() -> None:
        if next(opened) == turns:
            then()

    return between


async def test_a_change_on_its_way_is_no_difference(folder) -> None:
    world = await World(folder).fill()
    fresh = pod("10.2.0.7", "192.168.0.2", 2 << 16 | 8)
    await world.peers["cluster-b"].publish(fresh)
    world.between = later(2, lambda: world.agent.pods("cluster-b", fresh).settle())
    report = await world.auditor.audit()
    assert (report.differences, report.settled, report.rounds) == ((), 1, 2)


async def test_what_is_still_the_same_in_the_last_reading_is_a_difference(folder) -> None:
    world = await World(folder).fill()
    world.maps.ipcache.put_many([STRANGER])
    report = await world.auditor.audit()
    (difference,) = report.differences
    assert (difference.map, difference.kind, difference.key) == (
        "cilium_ipcache", EXTRA, "10.9.9.9/32",
    )  # fmt: skip
    assert report.rounds == 3
    assert "10.9.9.9/32 should not be there" in world.auditor.trouble()[0]


async def test_differences_are_mended_in_every_way(folder) -> None:
    world = await World(folder).fill()
    world.maps.ipcache.put_many([STRANGER])
    world.maps.nodes.drop_many([bytes([192, 168, 0, 2])])
    (master,) = (key for key, _ in world.maps.services4.items() if key[-6:-4] == b"\0\0")
    world.maps.services4.put_many([(master, bytes(12))])
    found = await world.auditor.audit()
    assert {it.kind for it in found.differences} >= {EXTRA, MISSING, WRONG}
    mended = await world.auditor.repair()
    assert mended.differences == ()
    assert mended.mended == len(found.differences)
    assert world.rewritten == ["shop/web"]
    assert (await world.auditor.repair()).mended == 0


@pytest.mark.parametrize("cause", ["outage", "no config", "bad file", "not followed"])
async def test_a_cluster_that_cannot_be_read_is_named_and_left_alone(folder, cause) -> None:
    world = await World(folder).fill()
    peer = world.peers["cluster-b"]
    if cause == "outage":
        peer.store.outage()
    elif cause == "no config":
        await peer.delete(keys.cluster_config("cluster-b"))
    elif cause == "bad file":
        (world.remotes / "cluster-b").write_text("endpoints: 7\n")
    else:
        world.standing = world.standing._replace(absent={"cluster-b": "its etcd is away"})
    report = await world.auditor.audit()
    assert report.differences == ()
    assert len(report.unaudited) == 1
    assert report.unaudited[0].startswith("cluster cluster-b: ")


async def test_without_the_own_cluster_there_is_no_audit(folder) -> None:
    world = await World(folder).fill()
    world.peers[OWN].store.outage(Unavailable("no route to host"))
    with pytest.raises(Impossible, match="own cluster's etcd cannot be read: no route to host"):
        await world.auditor.audit()
    world.standing = world.standing._replace(unready="the agent is not ready")
    with pytest.raises(Impossible, match="the agent is not ready"):
        await world.auditor.repair()


async def test_slices_are_read_where_there_is_nothing_else(folder) -> None:
    from clustermesh.model import Capabilities, SliceEndpoint

    world = await World(folder).fill()
    peer = world.peers["cluster-b"]
    await peer.withdraw(offer("cluster-b"))
    only = Capabilities(synced_canaries=True, endpoint_slices_export_mode="endpointslices-only")
    await peer.describe(capabilities=only)
    await peer.publish(slice_of("cluster-b", "web-1", SliceEndpoint(addresses=("10.2.0.1",))))
    assert (await world.auditor.audit()).differences == ()
    await peer.publish(slice_of("cluster-b", "web-2", SliceEndpoint(addresses=("10.2.0.2",))))
    assert (await world.auditor.audit()).differences != ()


async def test_it_audits_by_itself(folder) -> None:
    world = await World(folder).fill()
    world.maps.ipcache.put_many([STRANGER])
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(world.auditor.run())
        async with asyncio.timeout(20):
            while world.auditor.last is None:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.005)
        running.cancel()
    assert len(world.auditor.last.differences) == 1
