"""Load balancing per packet, there and back: bytes in, verdict and bytes out."""

import time
from dataclasses import replace

import pytest

from bpf.layout_ct import OUT, SERVICE, ConnectionKey, ConnectionValue
from bpf.layout_lb import (
    ServiceFlag,
)
from tests.support.bpf_balance import (
    ACK,
    CLIENT,
    EVERY,
    FIN,
    FROM_NODE_MARK,
    NEIGHBOUR,
    NODE,
    POD,
    REMOTE,
    SYN,
    VIP,
    Flow,
    World,
    flow_of,
)
from tests.support.bpf_balance_run import (
    AGAIN_MARK,
    AT_SERVICE,
    BY_SLOT,
    EGRESS,
    ERRORS,
    FAMILIES,
    FROM_NODE,
    INGRESS,
    KIND,
    NEXT,
    NODE_PORT,
    PLAIN,
    PROTOCOLS,
    REDIRECT,
    ask,
    error,
    serve,
)
from tests.support.bpf_packets import (
    TCP,
    UDP,
    assert_sound,
    header_size,
    packed,
)

pytestmark = pytest.mark.root


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
