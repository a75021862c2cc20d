"""Load balancing per packet: the life of a connection, errors about it, and datagrams in parts."""

import time
from dataclasses import replace
from struct import pack, unpack_from

import pytest

from bpf.layout_ct import OUT, SERVICE, ConnectionBits, ConnectionValue
from bpf.layout_lb import (
    ServiceFlag,
)
from tests.support.bpf_balance import (
    ACK,
    CLIENT,
    EVERY,
    FIN,
    NODE,
    POD,
    REMOTE,
    RST,
    SYN,
    VIP,
    World,
    flow_of,
)
from tests.support.bpf_balance_run import (
    EGRESS,
    ERRORS,
    FAMILIES,
    INGRESS,
    KIND,
    NEXT,
    NO_SERVICE,
    NODE_PORT,
    PLAIN,
    PROTOCOLS,
    RELATED,
    SHOT,
    ask,
    error,
    serve,
)
from tests.support.bpf_packets import (
    TCP,
    UDP,
    addresses,
    assert_sound,
    header_size,
    icmp,
    ip,
    packed,
    part6,
)

pytestmark = pytest.mark.root


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
