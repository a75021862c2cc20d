"""Load balancing per packet: which backend, for whom, and who is let pass untouched."""

import time
from dataclasses import replace

import pytest

from bpf import syscalls
from bpf.layout_events import DropEvent
from bpf.layout_lb import (
    AffinityKey,
    AffinityValue,
    BackendState,
    BackendValue,
    ServiceFlag,
    pack_backend_id,
)
from bpf.monitor import Level
from tests.support.bpf import seeded
from tests.support.bpf_balance import (
    ACK,
    CLIENT,
    EVERY,
    FIN,
    NEIGHBOUR,
    NODE,
    OWN_MAC,
    POD,
    REMOTE,
    RST,
    SOURCE_MAC,
    SYN,
    VIP,
    Flow,
    World,
    flow_of,
    frame,
)
from tests.support.bpf_balance_run import (
    AT_SERVICE,
    FAMILIES,
    INGRESS,
    KIND,
    NEXT,
    NO_SERVICE,
    NODE_PORT,
    PLAIN,
    PROTOCOLS,
    REDIRECT,
    SHOT,
    STALE,
    TOLD,
    ask,
    serve,
)
from tests.support.bpf_packets import (
    TCP,
    UDP,
    addresses,
    assert_sound,
    ethernet,
    header_size,
    packed,
)
from tests.support.bpf_selection import chosen, flow_number

pytestmark = pytest.mark.root


# --- selection ------------------------------------------------------------------------------------


@FAMILIES
@PROTOCOLS
@pytest.mark.parametrize("tabled", [True, False], ids=["table", "slots"])
def test_every_flow_gets_the_backend_that_the_model_foretells(here: World, family, proto, tabled):
    chance = seeded(family * proto)
    prefix = "10.1.7." if family == 4 else "fd00:1::7:"
    names = [f"{prefix}{n}" for n in range(1, 8)]
    ids = serve(here, family, proto, *names)
    table = chance.choices(ids, k=1021) if tabled else None
    here.lab.service(VIP[family], KIND[proto], ids, table=table)
    of = dict(zip(ids, names, strict=True))
    found = set()
    for _ in range(400):
        client = f"203.0.{chance.randrange(256)}.{chance.randrange(256)}"
        if family == 6:
            one, two = chance.randrange(9, 1 << 16), chance.randrange(1, 1 << 16)
            client = f"2001:db8:{one:x}:1:2:3:4:{two:x}"
        flow = Flow(client, chance.randrange(1, 65536), VIP[family], 80, proto)
        _, out, _ = here.arrives(flow.packet())
        number = flow_number(client, flow.source_port, 80, proto)
        assert flow_of(out).target == of[chosen(number, table, ids)]
        found.add(flow_of(out).target)
    assert found == set(names)


@FAMILIES
def test_a_connection_stays_with_its_backend_whatever_the_table_says(here: World, family):
    one, two = serve(here, family, TCP, POD[family], REMOTE[family])
    here.lab.service(VIP[family], KIND[TCP], [one, two], table=[one] * 1021)
    assert flow_of(here.arrives(ask(family).packet())[1]).target == POD[family]
    here.lab.service(VIP[family], KIND[TCP], [one, two], table=[two] * 1021)
    assert flow_of(here.arrives(ask(family).packet(flags=ACK))[1]).target == POD[family]
    assert flow_of(here.arrives(ask(family, port=40001).packet())[1]).target == REMOTE[family]


@FAMILIES
def test_one_on_its_way_out_keeps_what_it_has_and_gets_nothing_new(here: World, family, datapath):
    one, two = serve(here, family, TCP, POD[family], REMOTE[family])
    here.lab.service(VIP[family], KIND[TCP], [one, two], table=[one] * 1021)
    here.arrives(ask(family).packet())
    value = BackendValue(packed(POD[family]), 8080, TCP, BackendState.TERMINATING)
    backends = datapath.maps.backends6 if family == 6 else datapath.maps.backends4
    backends.put_many([(pack_backend_id(one), value.pack())])
    here.lab.service(VIP[family], KIND[TCP], [two], table=[two] * 1021)
    assert flow_of(here.arrives(ask(family).packet(flags=ACK))[1]).target == POD[family]
    assert flow_of(here.arrives(ask(family).packet(flags=SYN))[1]).target == REMOTE[family]
    here.summed = False
    backends.drop_many([pack_backend_id(two)])
    assert here.arrives(ask(family, port=40001).packet())[0] == REDIRECT


@FAMILIES
def test_clients_stick_by_address_until_the_time_is_out(here: World, family, datapath):
    ids = serve(here, family, TCP, *([POD[family], REMOTE[family], NEIGHBOUR[family]]))
    how = {"flags": ServiceFlag.SESSION_AFFINITY, "timeout": 100}
    here.lab.service(VIP[family], KIND[TCP], ids, **how)
    targets = {
        flow_of(here.arrives(ask(family, port=port).packet())[1]).target
        for port in range(40000, 40030)
    }
    assert len(targets) == 1
    affinity = datapath.maps.affinity6 if family == 6 else datapath.maps.affinity4
    ((raw, value),) = affinity.items()
    client = packed(CLIENT[family])
    assert AffinityKey.unpack(raw) == AffinityKey(client.ljust(8, b"\0"), 7, by_cookie=False)
    stuck = AffinityValue.unpack(value)
    affinity.put_many([(raw, replace(stuck, last_used=max(stuck.last_used - 101, 0)).pack())])
    targets = {
        flow_of(here.arrives(ask(family, port=port).packet())[1]).target
        for port in range(50000, 50001)
    }
    number = flow_number(CLIENT[family], 50000, 80, TCP)
    names = (POD[family], REMOTE[family], NEIGHBOUR[family])
    assert targets == {names[number % 3]}


def test_a_sticky_backend_that_may_no_longer_be_used_is_left(here: World, datapath):
    one, two = serve(here, 4, TCP, POD[4], REMOTE[4])
    how = {"flags": ServiceFlag.SESSION_AFFINITY, "timeout": 100}
    here.lab.service(VIP[4], KIND[TCP], [one, two], table=[one] * 1021, **how)
    here.arrives(ask(4).packet())
    match = datapath.maps.affinity_match
    match.drop_many([key for key, _ in match.items()])
    here.lab.service(VIP[4], KIND[TCP], [two], table=[two] * 1021, **how)
    assert flow_of(here.arrives(ask(4, port=40001).packet())[1]).target == REMOTE[4]


# --- source ranges --------------------------------------------------------------------------------

GUARDED = ServiceFlag.LOAD_BALANCER | ServiceFlag.SOURCE_RANGE
DENIED = 177
RANGES = {4: "203.0.113.0/29", 6: "2001:db8:f::/125"}
INSIDE = {4: "203.0.113.7", 6: "2001:db8:f::7"}
OUTSIDE = {4: "203.0.113.8", 6: "2001:db8:f::8"}


@FAMILIES
@PROTOCOLS
def test_a_service_serves_clients_of_its_ranges_only(here: World, family, proto, datapath):
    serve(here, family, proto, POD[family], flags=GUARDED)
    here.lab.open_to(7, RANGES[family])
    inside, outside = (
        replace(ask(family, proto), source=it[family]).packet() for it in (INSIDE, OUTSIDE)
    )
    assert flow_of(here.arrives(inside)[1]).target == POD[family]
    with datapath.listen() as ring:
        ring.want(Level.DROPS, until=time.monotonic_ns() + 600 * 10**9)
        assert here.arrives(outside)[0] == SHOT
        (event,) = ring.events(10)
    assert isinstance(event, DropEvent)
    assert event.reason == DENIED
    assert here.counts()[DENIED, INGRESS, PLAIN] == 1
    assert len(here.connections()) == 2


@FAMILIES
def test_a_range_that_is_taken_back_ends_what_it_allowed(here: World, family, datapath):
    serve(here, family, TCP, POD[family], flags=GUARDED)
    here.lab.open_to(7, RANGES[family])
    flow = replace(ask(family), source=INSIDE[family])
    here.arrives(flow.packet())
    maps = datapath.maps
    ranges = maps.source_ranges6 if family == 6 else maps.source_ranges4
    ranges.drop_many([key for key, _ in ranges.items()])
    assert here.arrives(flow.packet(flags=ACK))[0] == SHOT


@FAMILIES
def test_ranges_are_one_services_own(here: World, family):
    serve(here, family, TCP, POD[family], flags=GUARDED)
    here.lab.open_to(8, RANGES[family], "0.0.0.0/0", "::/0")
    assert here.arrives(replace(ask(family), source=INSIDE[family]).packet())[0] == SHOT
    serve(here, family, TCP, POD[family])  # without the flag nobody asks
    assert here.arrives(replace(ask(family), source=INSIDE[family]).packet())[0] == NEXT


# --- nobody there ---------------------------------------------------------------------------------


@FAMILIES
@PROTOCOLS
@pytest.mark.parametrize("data", [b"", b"hello", bytes(1200)], ids=len)
def test_a_service_without_backends_answers_at_once(here: World, family, proto, data):
    here.summed = False
    serve(here, family, proto)
    sent = ask(family, proto).packet(data=data)
    verdict, out, _ = here.arrives(sent)
    assert verdict == REDIRECT
    assert_sound(out)
    source, target = addresses(sent)
    assert addresses(out) == (target, source)
    message = out[header_size(out) :]
    assert (message[0], message[1]) == ((3, 3) if family == 4 else (1, 4))
    assert message[8:] == sent[: header_size(sent) + 8]
    assert here.counts() == {(NO_SERVICE, INGRESS, TOLD): 1}
    assert here.connections() == {}


@FAMILIES
@PROTOCOLS
def test_whoever_listens_is_told_of_what_was_refused(here: World, family, proto, datapath):
    here.summed = False
    serve(here, family, proto)
    sent = ask(family, proto).packet()
    with datapath.listen() as ring:
        ring.want(Level.DROPS, until=time.monotonic_ns() + 600 * 10**9)
        here.arrives(sent)
        (event,) = ring.events(10)
    assert isinstance(event, DropEvent)
    assert (event.reason, event.line, event.file) == (NO_SERVICE, INGRESS, 1)
    assert event.packet == frame(sent)[:128]


def test_the_answer_goes_to_the_station_that_asked(here: World):
    serve(here, 4, TCP)
    _, out, _ = syscalls.run_program(here.programs["ingress"], frame(ask(4).packet()))
    assert out[:12] == SOURCE_MAC + OWN_MAC


def test_a_flood_is_not_answered_by_a_flood(here: World):
    here.summed = False
    serve(here, 4, UDP)
    verdicts = [here.arrives(ask(4, UDP).packet())[0] for _ in range(1000)]
    time.sleep(0.11)  # until answers are due again
    assert set(verdicts) == {REDIRECT, SHOT}
    assert here.counts() == {
        (NO_SERVICE, INGRESS, TOLD): verdicts.count(REDIRECT),
        (NO_SERVICE, INGRESS, PLAIN): verdicts.count(SHOT),
    }


# --- never worse than without us ------------------------------------------------------------------


@FAMILIES
def test_with_stale_facts_what_others_can_serve_is_left_to_them(here: World, family, datapath):
    serve(here, family, TCP, POD[family])
    here.arrives(ask(family).packet())
    datapath.state.stamp(time.monotonic_ns() - 120 * 10**9)
    fresh = ask(family, port=40001).packet()
    assert here.arrives(fresh) == (NEXT, fresh, 0)
    assert flow_of(here.arrives(ask(family).packet(flags=ACK))[1]).target == POD[family]
    serve(here, family, TCP, REMOTE[family], cluster=2)
    assert flow_of(here.arrives(fresh)[1]).target == REMOTE[family]
    serve(here, family, TCP)
    nobody = ask(family, port=40002).packet()
    assert here.arrives(nobody) == (NEXT, nobody, 0)
    assert here.counts()[0, AT_SERVICE, STALE] == 2


@FAMILIES
@pytest.mark.parametrize("flags", [ACK, FIN | ACK, RST, SYN | ACK])
def test_connections_that_began_before_us_are_left_to_who_serves_them(
    here: World, family, flags, datapath
):
    serve(here, family, TCP, POD[family])
    datapath.state.stamp(time.monotonic_ns())
    sent = ask(family).packet(flags=flags)
    assert here.arrives(sent) == (NEXT, sent, 0)
    assert here.connections() == {}
    datapath.state.never_stale()  # nobody else serves: the same backend is found again
    assert flow_of(here.arrives(sent)[1]).target == POD[family]


@FAMILIES
def test_a_segment_to_a_node_port_that_nobody_began_may_be_an_answer_to_the_node(
    here: World, family
):
    flags = ServiceFlag.NODE_PORT
    serve(here, family, TCP, POD[family], vip=EVERY[family], port=NODE_PORT, flags=flags)
    answer = Flow(REMOTE[family], 443, NODE[family], NODE_PORT).packet(flags=SYN | ACK)
    assert here.arrives(answer) == (NEXT, answer, 0)
    assert here.connections() == {}


def test_what_other_stations_are_sent_is_left_alone(here: World):
    serve(here, 4, TCP, POD[4])
    sent = ethernet(ask(4).packet())
    assert syscalls.run_program(here.programs["ingress"], sent)[:2] == (NEXT, sent)
