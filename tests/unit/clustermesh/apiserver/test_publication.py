"""What the source says is handed on in order, and no number is told before it is recorded."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from clustermesh.apiserver.publication import RECORD, Publication
from clustermesh.export import Exporter, ExportSettings, Flavour
from clustermesh.health import Board
from clustermesh.identities import Allocator, Assignment
from clustermesh.keys import identity_range
from clustermesh.sources import objects
from clustermesh.sources.objects import ObjectKind
from clustermesh.sources.port import Removal, Upsert
from tests.support.clock import settle, virtual

NODE = "cilium/state/nodes/v1/paris/n1"
IP = "cilium/state/ip/v1/default/10.7.0.44"
SETTINGS = ExportSettings(cluster="paris", cluster_id=7, flavour=Flavour.CORE)


class Keys(dict[str, bytes]):
    """Where keys go."""

    def put(self, key: str, value: bytes) -> None:
        self[key] = value

    def remove(self, key: str) -> None:
        del self[key]


class Record:
    """Numbers by hash; recording waits for ``go`` and fails while there is a ``failure``."""

    def __init__(self) -> None:
        self.allocator = Allocator(identity_range(7))
        self.recorded: list[Assignment] = []
        self.go = asyncio.Event()
        self.failure: OSError | None = None
        self.attempts = 0

    def number(self, label_text: str) -> int | None:
        return self.allocator.number(label_text)

    def fresh(self) -> Sequence[Assignment]:
        return self.allocator.fresh()

    async def record(self, assignments: Sequence[Assignment]) -> None:
        self.attempts += 1
        await self.go.wait()
        if self.failure is not None:
            raise self.failure
        self.recorded += assignments


class World:
    """A publication over real export rules."""

    def __init__(self) -> None:
        self.keys = Keys()
        self.board = Board()
        self.record = Record()
        self.publication = Publication(
            Exporter(SETTINGS, self.record),
            self.keys,
            self.board,
            kinds=SETTINGS.kinds,
            recorder=self.record,
        )

    def node(self, name: str = "n1", address: str = "192.0.2.11") -> None:
        status = objects.NodeStatus(addresses=(objects.Address("InternalIP", address),))
        node = objects.Node(objects.Meta(name=name), status=status)
        self.publication.apply(ObjectKind.NODE, [Upsert(node)])

    def pod(self, name: str = "cart-0", ip: str = "10.7.0.44") -> None:
        meta = objects.Meta(name=name, namespace="shop", labels={"app": name})
        pod = objects.Pod(
            meta,
            spec=objects.PodSpec(node_name="n1"),
            status=objects.PodStatus(phase="Running", pod_ip=ip),
        )
        self.publication.apply(ObjectKind.POD, [Upsert(pod)])

    def drop_node(self, name: str = "n1") -> None:
        ref = objects.Ref(ObjectKind.NODE, "", name)
        self.publication.apply(ObjectKind.NODE, [Removal(ref)])

    def synced(self) -> None:
        for kind in sorted(SETTINGS.kinds):
            self.publication.synced(kind)

    async def is_alive(self) -> bool:
        try:
            async with asyncio.timeout(1):
                await self.publication.alive()
        except TimeoutError:
            return False
        return True


@asynccontextmanager
async def running() -> AsyncIterator[World]:
    world = World()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(world.publication.run(), name="publication")
        yield world
        task.cancel()


@virtual
async def test_what_needs_no_number_is_handed_on_at_once() -> None:
    world = World()
    world.node()
    assert NODE in world.keys
    world.drop_node()
    assert world.keys == {}


@virtual
async def test_a_number_is_recorded_before_anybody_is_told() -> None:
    async with running() as world:
        world.node()
        world.pod()
        await settle()
        assert world.keys.keys() == {NODE}
        world.drop_node()
        await settle()
        assert world.keys.keys() == {NODE}, "what comes later waits too: order is kept"
        world.record.go.set()
        await settle()
        assert IP in world.keys
        assert NODE not in world.keys
        (given,) = world.record.recorded
        assert f"cilium/state/identities/v1/id/{given.id}" in world.keys


@virtual
async def test_while_the_record_fails_nothing_new_is_told_and_the_board_says_why() -> None:
    async with running() as world:
        world.record.go.set()
        world.record.failure = OSError(28, "No space left on device")
        world.synced()
        world.pod()
        await asyncio.sleep(10)
        assert world.keys == {}
        assert world.record.attempts > 5
        assert "No space left on device" in str(world.board.trouble())
        assert not await world.is_alive()
        world.record.failure = None
        await asyncio.sleep(2)
        assert IP in world.keys
        assert len(world.record.recorded) == 1
        assert not any(line.startswith(RECORD) for line in world.board.trouble())
        assert await world.is_alive()


@virtual
async def test_alive_means_read_in_full_and_followed() -> None:
    world = World()
    assert not await world.is_alive()
    assert not world.board.ready
    world.synced()
    assert await world.is_alive()
    assert world.board.ready
    world.publication.trouble(ObjectKind.POD, "the API server does not answer")
    assert not await world.is_alive()
    assert world.board.ready, "what is published stays good"
    assert world.board.trouble() == ("source/Pod: the API server does not answer",)
    world.publication.trouble(ObjectKind.POD, None)
    assert await world.is_alive()
    assert world.board.trouble() == ()
    world.publication.trouble(None, "the directory is gone")
    assert not await world.is_alive()
    world.publication.trouble(None, None)
    assert await world.is_alive()


@virtual
async def test_kinds_and_refusals_are_told() -> None:
    world = World()
    publication, refusals = world.publication, world.publication.refusals
    async with asyncio.TaskGroup() as tasks:
        reviewing = tasks.create_task(publication.review(), name="review")
        world.pod(ip="none")
        publication.refused("x.yaml document 1", "spec.ports: expected a list")
        await asyncio.sleep(1)
        kinds = publication.kinds({ObjectKind.POD: 1})
        assert kinds["Pod"].objects == 1
        assert kinds["Pod"].last_event > 0
        assert kinds["Service"].last_event == 0
        assert {one.what for one in refusals.listed()} == {"x.yaml document 1", "Pod shop/cart-0"}
        assert "'none' is not an IP address" in refusals.listed()[-1].reason
        publication.refused("x.yaml document 1", None)
        world.pod(ip="10.7.0.44")
        await asyncio.sleep(2)
        assert refusals.listed() == ()
        reviewing.cancel()


@pytest.mark.parametrize("kind", sorted(SETTINGS.kinds))
def test_every_kind_must_be_read_before_it_is_ready(kind: ObjectKind) -> None:
    world = World()
    for each in sorted(SETTINGS.kinds - {kind}):
        world.publication.synced(each)
    assert not world.board.ready
    world.publication.synced(kind)
    assert world.board.ready
