"""Drops and passing packets are told to whoever listens, within limits, and to nobody else."""

import os
import select
import time
from collections.abc import Callable, Iterator

import pytest

from bpf import syscalls
from bpf.datapath import Datapath
from bpf.layout import IpcacheKey, IpcacheValue
from bpf.layout_events import DropEvent, Event, TraceEvent
from bpf.monitor import Level, Ring
from tests.support.bpf_packets import ethernet, packed, tcp, udp

pytestmark = pytest.mark.root

POD4, REMOTE4, NOBODY4 = "10.1.0.5", "10.2.0.7", "10.9.0.9"
POD6, REMOTE6 = "fd00:1::5", "fd00:2::7"
NODE = packed("192.168.1.3")
NO_ENDPOINT, NOT_IP = 160, 139
EGRESS = 2
LATER = 600 * 10**9

Run = Callable[[bytes], int]


def known(address: str, identity: int, endpoint: bytes = bytes(4)) -> tuple[bytes, bytes]:
    raw = packed(address)
    return IpcacheKey(raw, len(raw) * 8).pack(), IpcacheValue(identity, endpoint).pack()


@pytest.fixture
def send(datapath: Datapath, root) -> Iterator[Run]:
    datapath.maps.ipcache.put_many(
        [
            known(POD4, 0x10009),
            known(POD6, 0x10009),
            known(REMOTE4, 0x20007, NODE),
            known(REMOTE6, 0x20007, NODE),
        ]
    )
    fd = syscalls.open_pin(next((root / "programs").iterdir()) / "cm_to_overlay")
    yield lambda packet: syscalls.run_program(fd, packet)[0]
    os.close(fd)


@pytest.fixture
def ring(datapath: Datapath) -> Iterator[Ring]:
    with datapath.listen() as made:
        yield made


def listen(ring: Ring, level: Level) -> None:
    ring.want(level, until=time.monotonic_ns() + LATER)


def told(ring: Ring) -> list[Event]:
    return list(ring.events(10_000))


def test_a_drop_is_told_with_reason_identities_and_the_packet(send: Run, ring: Ring):
    listen(ring, Level.DROPS)
    frame = ethernet(udp(POD4, NOBODY4, data=bytes(300)))
    send(frame)
    (event,) = told(ring)
    assert isinstance(event, DropEvent)
    assert (event.reason, event.line, event.file) == (NO_ENDPOINT, EGRESS, 3)
    assert (event.source_identity, event.destination_identity) == (0x10009, 0)
    assert (event.size, event.packet) == (len(frame), frame[:128])


def test_a_short_packet_is_told_whole(send: Run, ring: Ring):
    listen(ring, Level.DROPS)
    frame = ethernet(bytes(28), protocol=0x0806)
    send(frame)
    (event,) = told(ring)
    assert isinstance(event, DropEvent)
    assert (event.reason, event.packet) == (NOT_IP, frame)


@pytest.mark.parametrize(("source", "target"), [(POD4, REMOTE4), (POD6, REMOTE6)])
def test_a_passing_packet_is_told_once_for_its_flow(send: Run, ring: Ring, source, target):
    listen(ring, Level.ALL)
    for _ in range(50):
        send(ethernet(udp(source, target)))
    (event,) = told(ring)
    assert isinstance(event, TraceEvent)
    assert (event.point, event.source_identity, event.destination_identity) == (4, 0x10009, 0x20007)
    send(ethernet(udp(target, source)))
    assert len(told(ring)) == 1


def test_a_connection_is_told_when_it_begins_and_when_it_ends(send: Run, ring: Ring):
    listen(ring, Level.ALL)
    for flags in (0x02, 0x10, 0x18, 0x10, 0x11, 0x11):  # SYN, ACK, data, ACK, FIN and again
        send(ethernet(tcp(POD4, REMOTE4, flags=flags)))
    flags = [event.packet[14 + 20 + 13] for event in told(ring)]
    assert flags == [0x02, 0x11]


@pytest.mark.parametrize("level", [Level.NOTHING, Level.DROPS])
def test_nobody_is_told_of_passing_packets_who_did_not_ask(send: Run, ring: Ring, level: Level):
    listen(ring, level)
    send(ethernet(udp(POD4, REMOTE4)))
    assert told(ring) == []


def test_after_its_time_nothing_is_told(send: Run, ring: Ring):
    ring.want(Level.ALL, until=time.monotonic_ns() - 1)
    send(ethernet(udp(POD4, NOBODY4)))
    assert told(ring) == []


def test_a_flood_is_told_within_limits_and_the_rest_is_counted(send: Run, ring: Ring):
    listen(ring, Level.DROPS)
    frame = ethernet(bytes(28), protocol=0x0806)
    for _ in range(3000):
        send(frame)
    seen, state = len(told(ring)), ring.state()
    assert seen + state.suppressed + state.lost == 3000
    assert state.suppressed > 0


def test_what_finds_no_room_is_counted_as_lost(send: Run, ring: Ring):
    listen(ring, Level.DROPS)
    frame = ethernet(bytes(28), protocol=0x0806)
    while ring.state().lost == 0:  # the ring has room for 1500; a window may have 500
        send(frame)
    lost = ring.state().lost
    assert len(told(ring)) > 1000
    time.sleep(0.11)  # the next window
    send(frame)
    assert len(told(ring)) == 1
    assert ring.state().lost == lost


def test_a_listener_wakes_up_and_a_later_one_sees_nothing_old(
    send: Run, ring: Ring, datapath: Datapath
):
    listen(ring, Level.DROPS)
    assert select.select([ring], [], [], 0)[0] == []
    send(ethernet(udp(POD4, NOBODY4)))
    assert select.select([ring], [], [], 10)[0] == [ring]
    ring.close()
    with datapath.listen() as later:
        assert later.state().level == Level.NOTHING
        assert told(later) == []
        listen(later, Level.DROPS)
        send(ethernet(udp(POD4, NOBODY4)))
        assert len(told(later)) == 1


def test_runs_are_counted_while_somebody_asks_for_it(send: Run, datapath: Datapath):
    def runs() -> int:
        return next(it.runs for it in datapath.programs() if it.name == "cm_to_overlay")

    send(ethernet(udp(POD4, REMOTE4)))
    before = runs()
    counting = syscalls.count_runs()
    try:
        send(ethernet(udp(POD4, REMOTE4)))
    finally:
        os.close(counting)
    assert runs() == before + 1


def test_what_was_missed_is_read_without_listening(send: Run, ring: Ring, datapath: Datapath):
    listen(ring, Level.DROPS)
    for _ in range(3000):
        send(ethernet(bytes(28), protocol=0x0806))
    assert datapath.monitor_state() == ring.state()
    assert datapath.monitor_state().suppressed > 0


def test_the_ring_goes_round(send: Run, ring: Ring):
    frame = ethernet(bytes(28), protocol=0x0806)
    seen = 0
    while seen < 5000:  # three times its room
        listen(ring, Level.DROPS)
        send(frame)
        events = told(ring)
        assert all(event.packet == frame for event in events)
        seen += len(events)
        if not events:
            time.sleep(0.02)
