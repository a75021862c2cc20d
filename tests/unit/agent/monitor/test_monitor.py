"""Listeners get what they asked for, with names; the kernel is asked only while there are some."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing

import msgspec
import pytest

from agent.monitor import monitor as module
from agent.monitor.monitor import Monitor
from agent.monitor.names import Names
from agent.monitor.packet import read
from bpf.layout_events import DropEvent, Event, MonitorValue, TraceEvent
from bpf.monitor import Level
from clustermesh.flows import Filter, Flow, Missed, Told
from clustermesh.model import IPEntry
from clustermesh.status import BackendStatus, IdentityStatus, NodeStatus, ServiceStatus
from tests.support.bpf_packets import ethernet, tcp, udp

HOME, PARIS = 0x10009, 0x70009
CLIENT, SERVER = "10.1.0.5", "10.7.0.9"
LABELS = ("k8s:app=cart", "k8s:io.kubernetes.pod.namespace=shop")


class FakeRing:
    """A ring whose events a test writes; readable as long as there are any."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self.pending: list[Event] = []
        self.value = MonitorValue()
        self.level = Level.NOTHING
        self.until = 0
        self.closed = False

    def put(self, *events: Event) -> None:
        self.pending += events
        self._theirs.send(b"x")

    def fileno(self) -> int:
        return self._ours.fileno()

    def want(self, level: Level, *, until: int) -> None:
        self.level, self.until = level, until

    def state(self) -> MonitorValue:
        return self.value

    def events(self, most: int) -> Iterator[Event]:
        self._ours.recv(1000)
        taken, self.pending = self.pending[:most], self.pending[most:]
        yield from taken

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()
        self.closed = True


class Facts:
    """What an agent knows."""

    def identity(self, number: int) -> IdentityStatus | None:
        cluster = {HOME: "home", PARIS: "paris"}.get(number)
        return IdentityStatus(id=number, cluster=cluster, labels=LABELS) if cluster else None

    def nodes(self) -> Sequence[NodeStatus]:
        return [
            NodeStatus(
                name="node-7", cluster="paris", ipv4="192.0.2.7", ipv4_cidrs=(), ipv6="",
                ipv6_cidrs=(), overlay=("10.7.0.1",), source="clustermesh",
            )
        ]  # fmt: skip

    def services(self) -> Sequence[ServiceStatus]:
        backend = BackendStatus(
            id=1,
            address=f"{SERVER}:{read(dropped().packet).destination_port}",
            cluster="paris",
            state="active",
            used=True,
            why="",
        )
        return [
            ServiceStatus(
                id=1, namespace="shop", name="cart", frontend="10.96.0.1:80/TCP", is_global=True,
                shared=True, affinity="none", backends=(backend,),
            )
        ]  # fmt: skip


class World:
    def __init__(self) -> None:
        self.rings: list[FakeRing] = []
        self.asked: list[tuple[str, str]] = []
        names = Names(Facts(), self.pod_of, lifetime=30, patience=0.05)
        self.monitor = Monitor(self.listen, names, node="home/node-1", beat=0.05)

    def listen(self) -> FakeRing:
        self.rings.append(FakeRing())
        return self.rings[-1]

    async def pod_of(self, cluster: str, address: str) -> IPEntry | None:
        self.asked.append((cluster, address))
        if address == "10.1.0.99":
            await asyncio.Event().wait()  # a peer that does not answer
        return IPEntry(ip=address, namespace="shop", pod=f"pod-{address[-1]}")


def dropped(source: str = CLIENT, target: str = SERVER, **more: int) -> DropEvent:
    frame = ethernet(tcp(source, target, flags=2))
    given = {"source_identity": HOME, "destination_identity": PARIS, **more}
    return DropEvent(160, 0, len(frame), line=2, file=3, ifindex=5, packet=frame, **given)


FROM_A_NODE = dropped("192.0.2.7", "10.9.9.9", source_identity=6, destination_identity=0)


def passed() -> TraceEvent:
    frame = ethernet(udp(SERVER, CLIENT))
    return TraceEvent(9, 0, len(frame), PARIS, HOME, 5, frame)


async def begin(lines: AsyncIterator[bytes]) -> None:
    """Until the listener listens: its first beat."""
    assert (await anext(lines)).strip() == b""


async def flow(lines: AsyncIterator[bytes]) -> Flow:
    told = await something(lines)
    assert isinstance(told, Flow)
    return told


async def something(lines: AsyncIterator[bytes]) -> Told:
    async with asyncio.timeout(10):
        async for line in lines:
            if line.strip():
                return msgspec.json.decode(line, type=Told)
    raise AssertionError("the stream ended")


async def test_a_drop_is_told_with_every_name():
    world = World()
    async with aclosing(world.monitor.lines(Filter())) as lines:
        await begin(lines)
        world.rings[0].put(dropped())
        told = await flow(lines)
    assert (told.node, told.type, told.direction) == ("home/node-1", "drop", "egress")
    assert (told.reason, told.code) == ("no node has the destination", 160)
    assert (told.protocol, told.flags) == ("TCP", "SYN")
    source = told.source
    assert (source.cluster, source.namespace, source.pod) == ("home", "shop", "pod-5")
    assert source.labels == LABELS
    assert (told.destination.cluster, told.destination.pod) == ("paris", "pod-9")


async def test_a_passing_packet_is_told_with_its_point():
    world = World()
    async with aclosing(world.monitor.lines(Filter())) as lines:
        await begin(lines)
        world.rings[0].put(passed())
        told = await flow(lines)
    assert (told.type, told.direction, told.point) == ("trace", "ingress", "from-overlay")


async def test_nodes_and_the_world_have_names_and_nobody_is_asked_for_them():
    world = World()
    async with aclosing(world.monitor.lines(Filter())) as lines:
        await begin(lines)
        world.rings[0].put(
            dropped("192.0.2.7", "10.9.9.9", source_identity=6, destination_identity=0)
        )
        told = await flow(lines)
    assert (told.source.cluster, told.source.node) == ("paris", "node-7")
    assert told.source.labels == ("reserved:remote-node",)
    assert (told.destination.cluster, told.destination.pod) == ("", "")
    assert world.asked == []


async def test_a_peer_that_does_not_answer_costs_a_name_and_no_event():
    world = World()
    async with aclosing(world.monitor.lines(Filter())) as lines:
        await begin(lines)
        world.rings[0].put(dropped("10.1.0.99"), dropped())
        first, second = await flow(lines), await flow(lines)
    assert (first.source.pod, first.source.namespace) == ("", "shop")
    assert second.source.pod == "pod-5"


async def test_a_pod_is_asked_for_once():
    world = World()
    async with aclosing(world.monitor.lines(Filter())) as lines:
        await begin(lines)
        world.rings[0].put(dropped(), dropped())
        await flow(lines)
        await flow(lines)
    assert world.asked == [("home", CLIENT), ("paris", SERVER)]


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({}, 2),
        ({"type": "drop"}, 1),
        ({"type": "trace"}, 1),
        ({"from-cluster": "home"}, 1),
        ({"to-cluster": "home"}, 1),
        ({"from-cluster": "rome"}, 0),
        ({"from-pod": "pod-5"}, 1),
        ({"from-pod": "shop/pod-5", "to-pod": "shop/pod-9"}, 1),
        ({"from-pod": "other/pod-5"}, 0),
        ({"type": "trace", "to-cluster": "paris"}, 0),
    ],
)
async def test_a_listener_gets_what_it_asked_for(query: dict[str, str], count: int):
    world = World()
    async with (
        aclosing(world.monitor.lines(Filter.of(query))) as lines,
        aclosing(world.monitor.lines(Filter())) as all_lines,
    ):
        await begin(lines)
        await begin(all_lines)
        world.rings[0].put(dropped(), passed(), FROM_A_NODE)
        for _ in range(3):
            await flow(all_lines)
        seen = []
        while (line := await anext(lines)).strip():
            seen.append(msgspec.json.decode(line, type=Told))
    assert len([it for it in seen if it.source.node == ""]) == count


async def test_backends_belong_to_their_service():
    world = World()
    async with aclosing(world.monitor.lines(Filter.of({"to-service": "shop/cart"}))) as lines:
        await begin(lines)
        world.rings[0].put(dropped(target="10.7.0.10"), dropped())
        told = await flow(lines)
    assert told.destination.services == ("shop/cart",)


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"typ": "drop"}, "unknown parameter 'typ'"),
        ({"type": "drops"}, "type: expected drop or trace, found 'drops'"),
        ({"to-service": "cart"}, "to-service: expected NAMESPACE/NAME"),
    ],
)
def test_a_filter_that_means_nothing_is_refused(query: dict[str, str], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        Filter.of(query)


async def test_the_kernel_is_asked_for_the_most_that_anybody_wants_and_for_no_more():
    world = World()
    async with aclosing(world.monitor.lines(Filter(type="drop"))) as few:
        await begin(few)
        (ring,) = world.rings
        assert ring.level == Level.DROPS
        async with aclosing(world.monitor.lines(Filter())) as much:
            await begin(much)
            assert world.rings == [ring]
            assert ring.level == Level.ALL
        assert ring.level == Level.DROPS
        before = ring.until
        await begin(few)
        assert ring.until > before
    assert ring.closed
    async with aclosing(world.monitor.lines(Filter())) as again:
        await begin(again)
        assert len(world.rings) == 2


async def test_what_was_missed_is_told():
    world = World()
    async with aclosing(world.monitor.lines(Filter())) as lines:
        await begin(lines)
        world.rings[0].value = MonitorValue(suppressed=7, lost=2)
        told = await something(lines)
        assert isinstance(told, Missed)
        assert (told.node, told.suppressed, told.lost, told.skipped) == ("home/node-1", 7, 2, 0)
        await begin(lines)


async def test_a_slow_listener_is_told_how_much_it_skipped(monkeypatch):
    monkeypatch.setattr(module, "QUEUE", 10)
    world = World()
    async with aclosing(world.monitor.lines(Filter())) as lines:
        await begin(lines)
        world.rings[0].put(*[dropped()] * 25)
        seen = [await something(lines) for _ in range(11)]
    (missed,) = (it for it in seen if isinstance(it, Missed))
    assert missed.skipped == 15
