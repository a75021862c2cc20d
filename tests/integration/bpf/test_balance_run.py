"""Load balancing per packet: bytes in, verdict, bytes, connections and counters out."""

import socket
import time
from dataclasses import replace
from struct import pack, unpack_from

import pytest

from bpf import syscalls
from bpf.datapath import load
from bpf.layout_ct import OUT, SERVICE, ConnectionBits, ConnectionKey, ConnectionValue
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
from bpf.specs import DatapathSettings
from tests.support.bpf import private_bpffs, seeded
from tests.support.bpf_balance import (
    ACK,
    CLIENT,
    EVERY,
    FIN,
    FROM_NODE_MARK,
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
    world,
)
from tests.support.bpf_packets import (
    ICMPV6,
    TCP,
    UDP,
    addresses,
    assert_sound,
    checksum,
    ethernet,
    header_size,
    icmp,
    ip,
    packed,
    part6,
    protocol_of,
)
from tests.support.bpf_selection import chosen, flow_number

pytestmark = pytest.mark.root

NEXT, SHOT, REDIRECT = -1, 2, 7
INGRESS, EGRESS, AT_SERVICE = 1, 2, 3
PLAIN, TOLD, STALE, BY_SLOT, FROM_NODE, RELATED, UNKNOWN = 1, 4, 5, 6, 7, 8, 9
NO_SERVICE = 158
AGAIN_MARK = 0x2000
KIND = {TCP: socket.SOCK_STREAM, UDP: socket.SOCK_DGRAM}
NODE_PORT = 30080

FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
PROTOCOLS = pytest.mark.parametrize("proto", [TCP, UDP], ids=["tcp", "udp"])


@pytest.fixture(scope="module")
def datapath(tmp_path_factory):
    with (
        private_bpffs(tmp_path_factory.mktemp("balance") / "bpf") as folder,
        load(folder / "clustermesh", DatapathSettings.small()) as loaded,
    ):
        yield loaded


@pytest.fixture(scope="module")
def everywhere(datapath):
    with world(datapath) as made:
        yield made


@pytest.fixture
def here(everywhere):
    everywhere.begin()
    return everywhere


def serve(here: World, family: int, proto: int, *targets: str, vip: str = "", **how) -> list[int]:
    """A service with these backends; their ids."""
    ids = [here.lab.backend(target, KIND[proto], how.pop("cluster", 0)) for target in targets]
    here.lab.service(vip or VIP[family], KIND[proto], ids, **how)
    return ids


def ask(family: int, proto: int = TCP, port: int = 40000) -> Flow:
    return Flow(CLIENT[family], port, VIP[family], 80, proto)


# --- there and back -------------------------------------------------------------------------------


@FAMILIES
@PROTOCOLS
def test_a_packet_for_a_service_goes_to_its_backend_and_the_answer_comes_from_the_service(
    here: World, family, proto
):
    serve(here, family, proto, POD[family])
    asked = ask(family, proto)
    verdict, out, mark = here.arrives(asked.packet())
    assert (verdict, mark) == (NEXT, 0)
    assert_sound(out)
    assert flow_of(out) == asked.to(POD[family], 8080)
    assert len(out) == len(asked.packet())
    verdict, out = here.leaves(asked.back(POD[family], 8080).packet(flags=SYN | ACK))
    assert verdict == NEXT
    assert_sound(out)
    assert flow_of(out) == asked.back(VIP[family], 80)
    counts = here.counts()
    assert counts.pop((0, AT_SERVICE, BY_SLOT)) == 1
    assert counts == {(0, INGRESS, PLAIN): 1, (0, EGRESS, PLAIN): 1}


@FAMILIES
@PROTOCOLS
def test_the_connection_table_is_the_contracts(here: World, family, proto):
    (backend,) = serve(here, family, proto, POD[family], rev_nat=0x0102)
    now = time.monotonic()
    here.arrives(ask(family, proto).packet())
    client, vip, pod = (packed(it[family]) for it in (CLIENT, VIP, POD))
    found = here.connections()
    service = found.pop(ConnectionKey(vip, client, 40000, 80, proto, SERVICE))
    egress = found.pop(ConnectionKey(client, pod, 8080, 40000, proto, OUT))
    assert not found
    assert service.backend_id == backend
    assert egress.named == bytes(16)
    for entry in (service, egress):
        assert (entry.rev_nat, entry.packets) == (0x0102, 1)
        assert now + 55 < entry.lifetime < now + 65 + 5
        assert entry.size == 14 + len(ask(family, proto).packet())


@FAMILIES
def test_a_datagram_without_a_checksum_stays_without(here: World, family):
    serve(here, family, UDP, POD[family])
    sent = ask(family, UDP).packet()
    at = header_size(sent) + 6
    _, out, _ = here.arrives(sent[:at] + bytes(2) + sent[at + 2 :])
    assert flow_of(out).target == POD[family]
    assert out[at : at + 2] == bytes(2)


@FAMILIES
@PROTOCOLS
def test_what_is_for_nobodys_service_is_left_alone(here: World, family, proto):
    serve(here, family, proto, POD[family])
    for flow in (
        replace(ask(family, proto), target_port=81),
        ask(family, proto).to(POD[family], 8080),
        replace(ask(family, proto), proto=UDP if proto == TCP else TCP),
    ):
        assert here.arrives(flow.packet()) == (NEXT, flow.packet(), 0)
        assert here.leaves(flow.packet()) == (NEXT, flow.packet())
    assert here.connections() == {}
    assert here.counts() == {}


@FAMILIES
def test_answers_of_connections_that_nobody_translated_are_left_alone(here: World, family):
    serve(here, family, TCP, POD[family])
    answer = ask(family).back(POD[family], 8080).packet(flags=SYN | ACK)
    assert here.leaves(answer) == (NEXT, answer)


@FAMILIES
def test_when_the_service_is_gone_answers_pass_untranslated(here: World, family, datapath):
    serve(here, family, TCP, POD[family])
    here.arrives(ask(family).packet())
    maps = datapath.maps
    for reverse in (maps.reverse_nat4, maps.reverse_nat6):
        reverse.drop_many([key for key, _ in reverse.items()])
    answer = ask(family).back(POD[family], 8080).packet()
    assert here.leaves(answer) == (NEXT, answer)


# --- where the answer would go --------------------------------------------------------------------


@FAMILIES
@PROTOCOLS
@pytest.mark.parametrize("where", [NEIGHBOUR, REMOTE], ids=["other-node", "other-cluster"])
def test_what_leaves_this_node_is_to_have_its_address(here: World, family, proto, where):
    serve(here, family, proto, where[family])
    verdict, out, mark = here.arrives(ask(family, proto).packet())
    assert (verdict, mark) == (NEXT, FROM_NODE_MARK)
    assert flow_of(out) == ask(family, proto).to(where[family], 8080)
    assert here.counts()[0, INGRESS, FROM_NODE] == 1


@FAMILIES
def test_a_pod_of_this_node_keeps_its_address(here: World, family):
    serve(here, family, TCP, REMOTE[family])
    flow = replace(ask(family), source=POD[family])
    assert here.arrives(flow.packet())[2] == 0


@FAMILIES
def test_a_backend_that_asks_for_itself_is_answered_by_way_of_the_node(here: World, family):
    serve(here, family, TCP, POD[family])
    flow = replace(ask(family), source=POD[family])
    _, out, mark = here.arrives(flow.packet())
    assert (flow_of(out).target, mark) == (POD[family], FROM_NODE_MARK)


@FAMILIES
@pytest.mark.parametrize("where", [POD, REMOTE], ids=["pod", "other-cluster"])
def test_what_a_bridge_gets_translated_enters_it_anew_and_once(here: World, family, where):
    """Netfilter has seen it inside the bridge, under the address that it had (br_netfilter)."""
    serve(here, family, TCP, where[family])
    expected = 0 if where is POD else FROM_NODE_MARK
    verdict, out, mark = here.run("bridge", ask(family).packet())
    assert (verdict, mark) == (REDIRECT, expected | AGAIN_MARK)
    assert flow_of(out).target == where[family]
    assert here.run("bridge", out, mark) == (NEXT, out, expected)
    strange = ask(family).to(CLIENT[family], 80).packet()
    assert here.run("bridge", strange) == (NEXT, strange, 0)
    assert here.counts()[0, INGRESS, FROM_NODE if expected else PLAIN] == 1


# --- node ports and outside addresses -------------------------------------------------------------


@FAMILIES
@PROTOCOLS
def test_a_node_port_is_on_this_nodes_address_and_answers_from_it(here: World, family, proto):
    flags = ServiceFlag.NODE_PORT
    serve(here, family, proto, POD[family], vip=EVERY[family], port=NODE_PORT, flags=flags)
    asked = ask(family, proto).to(NODE[family], NODE_PORT)
    _, out, mark = here.arrives(asked.packet())
    assert (flow_of(out), mark) == (asked.to(POD[family], 8080), 0)
    _, out = here.leaves(asked.back(POD[family], 8080).packet(flags=SYN | ACK))
    assert_sound(out)
    assert flow_of(out) == asked.back(NODE[family], NODE_PORT)
    elsewhere = asked.to(CLIENT[family], NODE_PORT).packet()
    assert here.arrives(elsewhere) == (NEXT, elsewhere, 0)


SECOND_NODE = {4: "192.0.2.99", 6: "2001:db8::99"}


def frontends_of_one_backend(here: World, family: int, proto: int) -> list[Flow]:
    """One port of a client, and three ways to ask the same backend."""
    here.know(SECOND_NODE[family], 1)
    serve(here, family, proto, POD[family])
    how = {"vip": EVERY[family], "port": NODE_PORT, "flags": ServiceFlag.NODE_PORT, "rev_nat": 8}
    serve(here, family, proto, POD[family], **how)
    asked = ask(family, proto)
    return [asked, *(asked.to(it[family], NODE_PORT) for it in (NODE, SECOND_NODE))]


@FAMILIES
@PROTOCOLS
def test_one_port_of_a_client_may_ask_a_backend_by_several_services_at_once(
    here: World, family, proto
):
    """The backend would take them for one: all but the first get a port of their own."""
    asked = frontends_of_one_backend(here, family, proto)
    for flags in (SYN, ACK):  # the second packet of each goes as the first
        seen = []
        for flow in asked:
            _, out, _ = here.arrives(flow.packet(flags=flags))
            assert_sound(out)
            seen.append(flow_of(out))
        assert seen[0].source_port == 40000
        assert all(it.source_port >= 32768 for it in seen[1:])
        assert len({it.source_port for it in seen}) == len(asked)
        for flow, arrived in reversed(list(zip(asked, seen, strict=True))):
            answer = arrived.back(arrived.target, arrived.target_port)
            verdict, out = here.leaves(answer.packet(flags=ACK, data=b"answer"))
            assert verdict == NEXT
            assert_sound(out)
            assert flow_of(out) == flow.back(flow.target, flow.target_port)


@FAMILIES
def test_both_sides_end_a_connection_whose_port_was_exchanged(here: World, family):
    asked = frontends_of_one_backend(here, family, TCP)[:2]
    seen = [flow_of(here.arrives(it.packet(flags=SYN))[1]) for it in asked]
    here.arrives(asked[1].packet(flags=FIN | ACK))
    here.leaves(seen[1].back(seen[1].target, 8080).packet(flags=FIN | ACK))
    left = [it.lifetime - time.monotonic() for it in here.connections().values()]
    assert sorted(seconds <= 11 for seconds in left) == [False, False, True, True]


@FAMILIES
def test_a_port_is_free_again_when_its_connection_has_ended(here: World, family):
    asked = frontends_of_one_backend(here, family, UDP)[:2]
    here.arrives(asked[0].packet())
    for table in here.balancer.connections:
        old = [(key, replace(ConnectionValue.unpack(it), lifetime=1).pack())
               for key, it in table.items()]  # fmt: skip
        table.put_many(old)
    assert flow_of(here.arrives(asked[1].packet())[1]).source_port == 40000


@FAMILIES
@pytest.mark.parametrize("proto", [UDP], ids=["udp"])
def test_errors_about_an_exchanged_port_find_both_ends(here: World, family, proto):
    asked = frontends_of_one_backend(here, family, proto)[:2]
    first, second = (flow_of(here.arrives(it.packet())[1]) for it in asked)
    assert first.source_port != second.source_port
    sent = second.packet()
    told = error(POD[family], CLIENT[family], sent, family=family, kind=ERRORS[family][1][0],
                 code=ERRORS[family][1][1])  # fmt: skip
    _, out = here.leaves(told)
    assert_sound(out)
    assert flow_of(out[header_size(out) + 8 :]) == asked[1]
    back = second.back(POD[family], 8080)
    seen = here.leaves(back.packet())[1]
    told = error(NODE[family], NODE[family], seen, family=family, kind=ERRORS[family][1][0],
                 code=ERRORS[family][1][1])  # fmt: skip
    _, out, _ = here.arrives(told)
    assert_sound(out)
    assert flow_of(out[header_size(out) + 8 :]) == back


@FAMILIES
def test_external_addresses_count_where_they_are_a_nodes(here: World, family):
    for address, served in ((NODE[family], True), (CLIENT[family], False)):
        serve(here, family, TCP, POD[family], vip=address, flags=ServiceFlag.EXTERNAL_IP)
        flow = ask(family).to(address, 80)
        assert (here.arrives(flow.packet())[1] != flow.packet()) is served


@FAMILIES
def test_external_traffic_local_has_a_scope_of_its_own_and_keeps_the_source(here: World, family):
    flags = ServiceFlag.LOAD_BALANCER | ServiceFlag.EXT_LOCAL | ServiceFlag.TWO_SCOPES
    near, far = (here.lab.backend(it[family], KIND[TCP]) for it in (POD, REMOTE))
    here.lab.service(VIP[family], KIND[TCP], [near], flags=flags, rev_nat=7)
    here.lab.service(VIP[family], KIND[TCP], [far], flags=flags, rev_nat=8, scope=1)
    _, out, mark = here.arrives(ask(family).packet())
    assert (flow_of(out).target, mark) == (POD[family], 0)
    here.know(CLIENT[family], 0x10077)  # a pod of this node: it is inside
    _, out, mark = here.arrives(ask(family, port=40001).packet())
    assert (flow_of(out).target, mark) == (REMOTE[family], 0)


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


# --- the life of a connection ---------------------------------------------------------------------


def lifetimes(here: World, family: int) -> dict[int, float]:
    """Seconds left by the entry's kind."""
    now = time.monotonic()
    return {key.flags: value.lifetime - now for key, value in here.connections().items()}


def near(seconds: float, expected: int) -> bool:
    return expected - 30 < seconds < expected + 2


@FAMILIES
def test_lifetimes_follow_the_segments(here: World, family):
    serve(here, family, TCP, POD[family])
    back = ask(family).back(POD[family], 8080)
    here.arrives(ask(family).packet(flags=SYN))
    assert all(near(left, 60) for left in lifetimes(here, family).values())
    here.leaves(back.packet(flags=SYN | ACK))
    here.arrives(ask(family).packet(flags=ACK))
    assert all(near(left, 8000) for left in lifetimes(here, family).values())
    here.arrives(ask(family).packet(flags=FIN | ACK))
    assert all(near(left, 8000) for left in lifetimes(here, family).values())
    here.leaves(back.packet(flags=FIN | ACK))
    assert all(left <= 10 for left in lifetimes(here, family).values())
    bits = {key.flags: value.bits for key, value in here.connections().items()}
    closed = ConnectionBits.RX_CLOSING | ConnectionBits.TX_CLOSING | ConnectionBits.SEEN_NON_SYN
    assert bits == {SERVICE: closed, OUT: closed}


@FAMILIES
@pytest.mark.parametrize("node_port", [False, True], ids=["address", "node-port"])
@pytest.mark.parametrize("first", ["client", "backend"])
def test_a_connection_that_one_side_has_ended_goes_on(here: World, family, node_port, first):
    """Both entries stay until the other side ends, too, and the translation with them."""
    asked = ask(family)
    if node_port:
        how = {"vip": EVERY[family], "port": NODE_PORT, "flags": ServiceFlag.NODE_PORT}
        asked = asked.to(NODE[family], NODE_PORT)
        serve(here, family, TCP, POD[family], **how)
    else:
        serve(here, family, TCP, POD[family])
    back = asked.back(POD[family], 8080)
    here.arrives(asked.packet(flags=SYN))
    here.leaves(back.packet(flags=SYN | ACK))
    here.arrives(asked.packet(flags=ACK))

    def end(side: str) -> None:
        if side == "client":
            here.arrives(asked.packet(flags=FIN | ACK))
        else:
            here.leaves(back.packet(flags=FIN | ACK))

    end(first)
    for _ in range(2):
        assert all(near(left, 8000) for left in lifetimes(here, family).values())
        assert flow_of(here.arrives(asked.packet(flags=ACK))[1]).target == POD[family]
        assert flow_of(here.leaves(back.packet(flags=ACK))[1]).source == asked.target
    end({"client": "backend", "backend": "client"}[first])
    assert [left <= 10 for left in lifetimes(here, family).values()] == [True, True]


@FAMILIES
@PROTOCOLS
def test_a_backend_that_goes_on_speaking_keeps_the_connection(here: World, family, proto):
    """Also the service's entry, which its packets do not pass: told of them every few seconds."""
    serve(here, family, proto, POD[family])
    here.arrives(ask(family, proto).packet())
    back = ask(family, proto).back(POD[family], 8080).packet(flags=ACK)
    now = int(time.monotonic())
    for told, expected in ((now, 5), (now - 6, 60)):
        for table in here.balancer.connections:
            entries = [(key, ConnectionValue.unpack(it)) for key, it in table.items()]
            nearly = {"lifetime": now + 5, "last_rx_report": told}
            table.put_many([(key, replace(it, **nearly).pack()) for key, it in entries])
        here.leaves(back)
        assert abs(lifetimes(here, family)[SERVICE] - expected) < 4


@FAMILIES
@pytest.mark.parametrize("by", ["client", "backend"])
def test_a_reset_ends_a_connection_at_once(here: World, family, by):
    serve(here, family, TCP, POD[family])
    here.arrives(ask(family).packet())
    if by == "client":
        here.arrives(ask(family).packet(flags=RST))
    else:
        here.leaves(ask(family).back(POD[family], 8080).packet(flags=RST))
    assert all(left <= 10 for left in lifetimes(here, family).values())


@FAMILIES
def test_a_handshake_on_a_closed_connection_is_a_new_one(here: World, family):
    one, two = serve(here, family, TCP, POD[family], REMOTE[family])
    here.lab.service(VIP[family], KIND[TCP], [one, two], table=[one] * 1021)
    here.arrives(ask(family).packet())
    here.arrives(ask(family).packet(flags=RST))
    here.lab.service(VIP[family], KIND[TCP], [one, two], table=[two] * 1021)
    assert flow_of(here.arrives(ask(family).packet())[1]).target == REMOTE[family]
    assert near(lifetimes(here, family)[SERVICE], 60)


@FAMILIES
def test_packets_and_bytes_of_a_connection_are_counted(here: World, family):
    serve(here, family, UDP, POD[family])
    sent = ask(family, UDP).packet()
    back = ask(family, UDP).back(POD[family], 8080).packet(data=b"a longer answer")
    for _ in range(3):
        here.arrives(sent)
    here.leaves(back)
    found = {key.flags: value for key, value in here.connections().items()}
    assert (found[SERVICE].packets, found[SERVICE].size) == (3, 3 * (14 + len(sent)))
    assert (found[OUT].packets, found[OUT].size) == (4, 3 * (14 + len(sent)) + 14 + len(back))


@FAMILIES
def test_a_client_that_goes_to_a_backend_itself_is_answered_by_it(here: World, family):
    serve(here, family, TCP, POD[family])
    here.arrives(ask(family).packet())
    direct = ask(family).to(POD[family], 8080)
    here.arrives(direct.packet())
    answer = direct.back(POD[family], 8080).packet(flags=SYN | ACK)
    assert here.leaves(answer) == (NEXT, answer)


@FAMILIES
def test_another_service_under_the_same_address_is_another_connection(here: World, family):
    serve(here, family, UDP, POD[family], rev_nat=7)
    here.arrives(ask(family, UDP).packet())
    serve(here, family, UDP, REMOTE[family], rev_nat=8)
    assert flow_of(here.arrives(ask(family, UDP).packet())[1]).target == REMOTE[family]


# --- ICMP errors ----------------------------------------------------------------------------------


def error(source: str, target: str, quoted: bytes, *, family: int, kind: int, code: int) -> bytes:
    """An ICMP error that quotes a packet, with the MTU that it asks for."""
    made = icmp(source, target, kind, code, pack("!HH", 0, 1400))
    size = header_size(made)
    message = made[size : size + 2] + bytes(2) + pack("!HH", 0, 1400) + quoted
    a, b = packed(source), packed(target)
    pseudo = b"" if family == 4 else a + b + pack("!II", len(message), ICMPV6)
    total = checksum(pseudo + message)
    whole = message[:2] + pack("!H", total) + message[4:]
    return ip(source, target, protocol_of(made), whole)


ERRORS = {4: [(3, 4), (3, 3), (11, 0)], 6: [(2, 0), (1, 4), (3, 0)]}


@FAMILIES
@PROTOCOLS
@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("router", [None, NODE], ids=["backend", "router"])
def test_an_error_about_what_a_client_sent_speaks_of_the_service(
    here: World, family, proto, which, router
):
    serve(here, family, proto, POD[family])
    asked = ask(family, proto)
    sent = here.arrives(asked.packet())[1]
    kind, code = ERRORS[family][which]
    source = router[family] if router else POD[family]
    length = header_size(sent) + 8 if which else len(sent)
    told = error(source, CLIENT[family], sent[:length], family=family, kind=kind, code=code)
    verdict, out = here.leaves(told)
    assert verdict == NEXT
    assert_sound(out)
    assert addresses(out)[0] == packed(router[family] if router else VIP[family])
    message = out[header_size(out) :]
    assert message[4:8] == pack("!HH", 0, 1400)
    quoted = message[8:]
    assert flow_of(quoted) == asked
    assert quoted[: header_size(quoted)] == asked.packet()[: header_size(quoted)]
    assert here.counts()[0, EGRESS, RELATED] == 1


@PROTOCOLS
def test_an_error_about_a_part_of_a_datagram_speaks_of_the_service(here: World, proto):
    serve(here, 6, proto, POD[6])
    asked = ask(6, proto)
    whole = asked.packet(data=bytes(1000))
    sent = here.arrives(part6(whole, start=0, end=800))[1]
    told = error(NODE[6], CLIENT[6], sent, family=6, kind=2, code=0)
    _, out = here.leaves(told)
    assert_sound(out)
    quoted, expected = out[48:], part6(whole, start=0, end=800)
    assert quoted[:52] == expected[:52]  # but for the transport's checksum, which nobody reads


@FAMILIES
@PROTOCOLS
@pytest.mark.parametrize("which", [0, 1, 2])
def test_an_error_about_an_answer_reaches_the_backend(here: World, family, proto, which):
    serve(here, family, proto, POD[family])
    asked = ask(family, proto)
    here.arrives(asked.packet())
    answer = asked.back(POD[family], 8080).packet(data=bytes(1000))
    seen = here.leaves(answer)[1]
    kind, code = ERRORS[family][which]
    router = {4: "203.0.113.1", 6: "2001:db8:f::1"}[family]
    told = error(router, VIP[family], seen[:200], family=family, kind=kind, code=code)
    verdict, out, _ = here.arrives(told)
    assert verdict == NEXT
    assert_sound(out)
    assert addresses(out) == (packed(router), packed(POD[family]))
    quoted = out[header_size(out) + 8 :]
    assert flow_of(quoted) == asked.back(POD[family], 8080)
    assert here.counts()[0, INGRESS, RELATED] == 1


@FAMILIES
def test_errors_about_others_and_other_messages_are_left_alone(here: World, family):
    serve(here, family, TCP, POD[family])
    here.arrives(ask(family).packet())
    strange = ask(family, port=50000).to(POD[family], 8080).packet()
    kind, code = ERRORS[family][0]
    for packet in (
        error(NODE[family], CLIENT[family], strange, family=family, kind=kind, code=code),
        icmp(CLIENT[family], VIP[family], 8 if family == 4 else 128),
        icmp(VIP[family], CLIENT[family], 0 if family == 4 else 129),
        error(NODE[family], CLIENT[family], strange[:10], family=family, kind=kind, code=code),
    ):
        assert here.arrives(packet) == (NEXT, packet, 0)
        assert here.leaves(packet) == (NEXT, packet)


# --- datagrams in parts ---------------------------------------------------------------------------


MORE = 0x2000


def test_every_part_of_a_datagram_goes_the_same_way_there_and_back(here: World):
    serve(here, 4, UDP, POD[4])
    asked = ask(4, UDP)
    first = asked.packet(data=bytes(1000), fragment=MORE)
    later = ip(CLIENT[4], VIP[4], UDP, bytes(500), fragment=126)
    assert here.arrives(later)[1] == later  # before the first nobody knows its ports
    out = here.arrives(first)[1]
    assert flow_of(out) == asked.to(POD[4], 8080)
    out = here.arrives(later)[1]
    assert addresses(out) == (packed(CLIENT[4]), packed(POD[4]))
    assert out[20:] == later[20:]
    assert unpack_from("!H", out, 6)[0] == 126
    back = asked.back(POD[4], 8080).packet(data=bytes(1000), fragment=MORE)
    assert flow_of(here.leaves(back)[1]) == asked.back(VIP[4], 80)
    out = here.leaves(ip(POD[4], CLIENT[4], UDP, bytes(500), fragment=126))[1]
    assert addresses(out) == (packed(VIP[4]), packed(CLIENT[4]))


def test_every_part_of_an_ipv6_datagram_goes_the_same_way_there_and_back(here: World):
    serve(here, 6, UDP, POD[6])
    asked = ask(6, UDP)
    whole = asked.packet(data=bytes(range(250)) * 4)
    first, later = part6(whole, start=0, end=800), part6(whole, start=800)
    assert here.arrives(later)[1] == later  # before the first nobody knows its ports
    translated = asked.to(POD[6], 8080).packet(data=bytes(range(250)) * 4)
    assert here.arrives(first)[1] == part6(translated, start=0, end=800)
    assert here.arrives(later)[1] == part6(translated, start=800)
    back = asked.back(POD[6], 8080).packet(data=bytes(1000))
    expected = asked.back(VIP[6], 80).packet(data=bytes(1000))
    for cut in ({"start": 0, "end": 800}, {"start": 800}):
        assert here.leaves(part6(back, **cut))[1] == part6(expected, **cut)


@PROTOCOLS
def test_a_packet_that_is_its_only_part_is_served_too(here: World, proto):
    serve(here, 6, proto, POD[6])
    sent = ask(6, proto).packet()
    expected = ask(6, proto).to(POD[6], 8080).packet()
    assert here.arrives(part6(sent, start=0))[1] == part6(expected, start=0)
    assert here.counts()[0, INGRESS, PLAIN] == 1


def test_parts_that_nobody_takes_are_dropped_without_a_word(here: World):
    serve(here, 6, UDP)
    assert here.arrives(part6(ask(6, UDP).packet(), start=0))[0] == SHOT
    assert here.counts() == {(NO_SERVICE, INGRESS, PLAIN): 1}


def test_an_ipv4_header_with_options_is_no_obstacle(here: World):
    serve(here, 4, TCP, POD[4])
    sent = ask(4).packet(options=b"\1\1\1\0")
    out = here.arrives(sent)[1]
    assert_sound(out)
    assert flow_of(out) == ask(4).to(POD[4], 8080)
