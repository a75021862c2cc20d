"""Services as programs see them: real sockets in a control group, real echo servers as backends."""

import os
import socket
import subprocess
import time

import pytest

from bpf.counters import Line, Reason
from bpf.layout_lb import (
    AffinityMatchKey,
    AffinityValue,
    ServiceFlag,
    ServiceKey,
    ServiceValue,
    pack_rev_nat,
    pack_table,
)
from tests.support.bpf import child_cgroup, inside, netns, seeded
from tests.support.bpf_packets import packed
from tests.support.bpf_services import PORT, TCP, UDP, Lab, ask, family_of, many, serving

pytestmark = pytest.mark.root

VIP4, VIP6 = "10.96.0.10", "fd00:96::a"
BACKENDS4 = ["127.0.1.1", "127.0.1.2", "127.0.1.3"]
BACKENDS6 = ["fd00:1::1", "fd00:1::2", "fd00:1::3"]
TABLE = 1021


@pytest.fixture(scope="module")
def place():
    """One namespace with servers for all tests of this file; services differ from test to test."""
    name = f"cm-test-{os.getpid()}-lb"
    with netns(name):
        for address in BACKENDS6:
            words = ("addr", "add", f"{address}/128", "dev", "lo", "nodad")
            subprocess.run(["ip", "-n", name, *words], check=True)
        with serving(name, BACKENDS4 + BACKENDS6):
            yield name


@pytest.fixture
def lab(datapath, place):
    with child_cgroup(f"cm-test-{os.getpid()}-lb") as cgroup:
        datapath.attach_sock_lb(cgroup)
        datapath.state.configure(cluster_id=1, stale_after=60 * 10**9)
        yield Lab(datapath, place, cgroup)
        datapath.detach_sock_lb()


CASES = pytest.mark.parametrize(
    ("vip", "addresses"), [(VIP4, BACKENDS4), (VIP6, BACKENDS6)], ids=["v4", "v6"]
)
KINDS = pytest.mark.parametrize("kind", [TCP, UDP], ids=["tcp", "udp"])


@CASES
@KINDS
def test_connections_are_spread_as_the_table_says(lab, vip, addresses, kind):
    first, second, third = (lab.backend(address, kind) for address in addresses)
    table = [first] * 340 + [second] * 681
    seeded(1).shuffle(table)
    lab.service(vip, kind, [first, second, third], table=table)
    seen = many(lab, vip, kind, 200)
    assert set(seen) == set(addresses[:2])
    assert 20 < seen[addresses[0]] < 120
    assert lab.counted(Reason.FORWARDED, Line.SELECTED_BY_SLOT) == 0


@CASES
@KINDS
def test_without_a_table_a_slot_is_drawn(lab, vip, addresses, kind):
    lab.service(vip, kind, [lab.backend(address, kind) for address in addresses])
    assert set(many(lab, vip, kind, 100)) == set(addresses)
    assert lab.counted(Reason.FORWARDED, Line.SELECTED_BY_SLOT) == 100


@KINDS
def test_an_address_that_is_no_service_is_left_alone(lab, kind):
    lab.service(VIP4, kind, [lab.backend(BACKENDS4[0], kind)])

    def direct() -> str:
        with socket.socket(socket.AF_INET, kind) as client:
            client.settimeout(5)
            client.connect((BACKENDS4[1], 8080))
            client.sendall(b"who")
            assert client.getpeername() == (BACKENDS4[1], 8080)
            return client.recv(100).decode()

    assert lab.run(direct) == BACKENDS4[1]
    assert lab.datapath.maps.metrics.read() == {}


@CASES
@KINDS
def test_source_ranges_are_left_to_the_device_that_enforces_them(lab, vip, addresses, kind):
    number = lab.backend(addresses[0], kind)
    lab.service(vip, kind, [number], flags=ServiceFlag.SOURCE_RANGE)
    lab.open_to(7, "0.0.0.0/0", "::/0")
    with pytest.raises(OSError, match="unreachable"):
        lab.run(lambda: ask(vip, kind))
    assert lab.datapath.maps.metrics.read() == {}


def test_the_protocol_tells_services_apart(lab):
    lab.service(VIP4, TCP, [lab.backend(BACKENDS4[0], TCP)], rev_nat=7)
    lab.service(VIP4, UDP, [lab.backend(BACKENDS4[1], UDP)], rev_nat=8)
    assert set(many(lab, VIP4, TCP, 5)) == {BACKENDS4[0]}
    assert set(many(lab, VIP4, UDP, 5)) == {BACKENDS4[1]}


@CASES
@KINDS
def test_a_program_sees_the_address_it_asked_for(lab, vip, addresses, kind):
    lab.service(vip, kind, [lab.backend(addresses[0], kind)])

    def peer() -> object:
        with socket.socket(family_of(vip), kind) as client:
            client.settimeout(5)
            client.connect((vip, PORT))
            return client.getpeername()[:2]

    assert lab.run(peer) == (vip, PORT)


@KINDS
def test_programs_that_use_mapped_addresses_are_served(lab, kind):
    lab.service(VIP4, kind, [lab.backend(BACKENDS4[0], kind)])
    mapped = f"::ffff:{VIP4}"

    def both() -> tuple[str, object]:
        with socket.socket(socket.AF_INET6, kind) as client:
            client.settimeout(5)
            client.connect((mapped, PORT))
            client.sendall(b"who")
            return client.recv(100).decode(), client.getpeername()[:2]

    assert lab.run(both) == (BACKENDS4[0], (mapped, PORT))


@pytest.mark.parametrize(
    ("family", "vip", "addresses"),
    [
        (socket.AF_INET, VIP4, BACKENDS4),
        (socket.AF_INET6, VIP6, BACKENDS6),
        (socket.AF_INET6, f"::ffff:{VIP4}", BACKENDS4),
    ],
    ids=["v4", "v6", "mapped"],
)
def test_datagrams_without_a_connection_find_a_backend_and_the_way_back(
    lab, family, vip, addresses
):
    frontend = vip.removeprefix("::ffff:")
    numbers = [lab.backend(address, UDP) for address in addresses]
    lab.service(frontend, UDP, numbers, table=(numbers * TABLE)[:TABLE])

    def converse() -> list[tuple[str, object]]:
        with socket.socket(family, UDP) as client:
            client.settimeout(5)
            heard = []
            for _ in range(10):
                client.sendto(b"who", (vip, PORT))
                data, peer = client.recvfrom(100)
                heard.append((data.decode(), peer[:2]))
            return heard

    heard = lab.run(converse)
    assert {peer for _, peer in heard} == {(vip, PORT)}
    assert len({who for who, _ in heard}) == 1, "one socket stays with one backend"


@CASES
@KINDS
def test_a_service_without_backends_refuses_at_once(lab, vip, addresses, kind):
    lab.service(vip, kind, [])
    with pytest.raises(OSError, match="No route to host"):
        lab.run(lambda: ask(vip, kind))
    assert lab.counted(Reason.DROP_NO_SERVICE) == 1


def test_a_datagram_to_a_service_without_backends_is_refused_at_once(lab):
    lab.service(VIP4, UDP, [])

    def send() -> None:
        with socket.socket(socket.AF_INET, UDP) as client:
            client.sendto(b"who", (VIP4, PORT))

    with pytest.raises(OSError, match="No route to host"):
        lab.run(send)


@CASES
def test_a_missing_slot_and_a_missing_backend_are_told_apart(lab, vip, addresses):
    lab.service(vip, TCP, [0])
    with pytest.raises(OSError, match="No route to host"):
        lab.run(lambda: ask(vip, TCP))
    assert (lab.counted(Reason.LB_NO_SLOT), lab.counted(Reason.LB_NO_BACKEND)) == (1, 0)
    lab.service(vip, TCP, [4711])
    with pytest.raises(OSError, match="No route to host"):
        lab.run(lambda: ask(vip, TCP))
    assert (lab.counted(Reason.LB_NO_SLOT), lab.counted(Reason.LB_NO_BACKEND)) == (1, 1)


@CASES
def test_a_sticky_service_keeps_its_clients(lab, vip, addresses):
    numbers = [lab.backend(address, TCP) for address in addresses]
    lab.service(vip, TCP, numbers, flags=ServiceFlag.SESSION_AFFINITY, timeout=100)
    seen = many(lab, vip, TCP, 20)
    assert len(seen) == 1
    affinity = lab.datapath.maps.affinity6 if ":" in vip else lab.datapath.maps.affinity4
    assert len(list(affinity.items())) == 1


@CASES
def test_a_sticky_client_moves_when_its_backend_may_no_longer_be_used(lab, vip, addresses):
    numbers = [lab.backend(address, TCP) for address in addresses]
    lab.service(vip, TCP, numbers, flags=ServiceFlag.SESSION_AFFINITY, timeout=100)
    (stuck,) = many(lab, vip, TCP, 3)
    rest = [n for n, address in zip(numbers, addresses, strict=True) if address != stuck]
    gone = numbers[addresses.index(stuck)]
    lab.service(vip, TCP, rest, flags=ServiceFlag.SESSION_AFFINITY, timeout=100)
    lab.datapath.maps.affinity_match.drop_many([AffinityMatchKey(gone, 7).pack()])
    moved = many(lab, vip, TCP, 10)
    assert len(moved) == 1
    assert stuck not in moved


def test_stickiness_ends_with_its_timeout(lab):
    numbers = [lab.backend(address, TCP) for address in BACKENDS4]
    lab.service(VIP4, TCP, numbers, flags=ServiceFlag.SESSION_AFFINITY, timeout=0)
    assert len(many(lab, VIP4, TCP, 60)) > 1


@CASES
def test_stickiness_is_counted_from_the_last_use(lab, vip, addresses):
    numbers = [lab.backend(address, TCP) for address in addresses]
    timeout = min(1000, int(time.monotonic()) // 2)  # the clock began when the machine did
    lab.service(vip, TCP, numbers, flags=ServiceFlag.SESSION_AFFINITY, timeout=timeout)
    (stuck,) = many(lab, vip, TCP, 3)
    affinity = lab.datapath.maps.affinity6 if ":" in vip else lab.datapath.maps.affinity4
    ((client, raw),) = affinity.items()
    used = AffinityValue.unpack(raw)

    def last_used(seconds_ago: int) -> None:
        then = int(time.monotonic()) - seconds_ago
        affinity.put_many([(client, AffinityValue(then, used.backend_id).pack())])

    last_used(timeout // 2)
    assert set(many(lab, vip, TCP, 10)) == {stuck}
    assert AffinityValue.unpack(affinity.get(client)).last_used >= used.last_used
    seen = set()
    for _ in range(30):  # each draws anew: that all 30 draw the same is one in 10^13
        last_used(timeout + 1)
        seen |= set(many(lab, vip, TCP, 1))
    assert len(seen) > 1


@CASES
@KINDS
def test_a_pod_may_be_its_own_backend(lab, vip, addresses, kind):
    """No packet leaves, so there is nothing to translate: the peer is the pod itself."""
    lab.service(vip, kind, [lab.backend(addresses[0], kind)])

    def both_ends() -> tuple[str, str, str]:
        with socket.socket(family_of(vip), kind) as client:
            client.settimeout(5)
            client.bind((addresses[0], 0))
            client.connect((vip, PORT))
            client.sendall(b"who")
            answer = client.recv(100).decode()
            return answer, client.getsockname()[0], client.getpeername()[0]

    assert lab.run(both_ends) == (addresses[0], addresses[0], vip)


@CASES
def test_stale_facts_leave_local_picks_alone_and_keep_remote_ones(lab, vip, addresses):
    own, same, other = (
        lab.backend(address, TCP, cluster)
        for address, cluster in zip(addresses, (0, 1, 2), strict=True)
    )
    stale = time.monotonic_ns() - 61 * 10**9
    for number in (own, same):
        lab.service(vip, TCP, [number], table=[number] * TABLE)
        lab.datapath.state.stamp(time.monotonic_ns())
        assert many(lab, vip, TCP, 3).total() == 3
        lab.datapath.state.stamp(stale)
        before = lab.counted(Reason.FORWARDED, Line.STALE_LOCAL)
        with pytest.raises(OSError, match="Network is unreachable"):
            lab.run(lambda: ask(vip, TCP))
        assert lab.counted(Reason.FORWARDED, Line.STALE_LOCAL) == before + 1
    lab.service(vip, TCP, [other], table=[other] * TABLE)
    assert set(many(lab, vip, TCP, 3)) == {addresses[2]}


def test_stale_facts_refuse_nobody(lab):
    lab.datapath.state.stamp(time.monotonic_ns() - 61 * 10**9)
    lab.service(VIP4, TCP, [])
    with pytest.raises(OSError, match="Network is unreachable"):
        lab.run(lambda: ask(VIP4, TCP))
    lab.service(VIP4, TCP, [4711])
    with pytest.raises(OSError, match="Network is unreachable"):
        lab.run(lambda: ask(VIP4, TCP))
    assert lab.counted(Reason.FORWARDED, Line.STALE_LOCAL) == 2
    assert (lab.counted(Reason.DROP_NO_SERVICE), lab.counted(Reason.LB_NO_BACKEND)) == (0, 0)


def test_an_agent_that_never_stamped_is_not_stale(lab):
    lab.datapath.state.configure(stale_after=0)
    lab.service(VIP4, TCP, [lab.backend(BACKENDS4[0], TCP)])
    assert many(lab, VIP4, TCP, 3).total() == 3


@CASES
def test_a_service_that_is_gone_no_longer_names_its_old_peers(lab, vip, addresses):
    lab.service(vip, UDP, [lab.backend(addresses[0], UDP)])
    services = lab.datapath.maps.services6 if ":" in vip else lab.datapath.maps.services4
    reverse = (
        lab.datapath.maps.reverse_sockets6 if ":" in vip else lab.datapath.maps.reverse_sockets4
    )

    def peers() -> list[object]:
        with socket.socket(family_of(vip), UDP) as client:
            client.connect((vip, PORT))
            names = [client.getpeername()[:2]]
            services.drop_many([ServiceKey(packed(vip), PORT, 17).pack()])
            names.append(client.getpeername()[:2])
            return names

    assert lab.run(peers) == [(vip, PORT), (addresses[0], 8080)]
    assert list(reverse.items()) == []
    assert lab.counted(Reason.LB_REVERSE_STALE) == 1


def test_two_scopes_use_the_inner_one(lab):
    outer, inner = lab.backend(BACKENDS4[0], TCP), lab.backend(BACKENDS4[1], TCP)
    services = lab.datapath.maps.services4
    address = packed(VIP4)
    for scope, number in ((0, outer), (1, inner)):
        slot = ServiceKey(address, PORT, 6, 1, scope)
        master = ServiceKey(address, PORT, 6, 0, scope)
        services.put_many(
            [
                (slot.pack(), ServiceValue(number, 0, 7).pack()),
                (master.pack(), ServiceValue(0, 1, 7, ServiceFlag.TWO_SCOPES).pack()),
            ]
        )
    assert set(many(lab, VIP4, TCP, 5)) == {BACKENDS4[1]}


def test_sockets_outside_the_control_group_are_left_alone(lab, place):
    lab.service(VIP4, TCP, [lab.backend(BACKENDS4[0], TCP)])
    with pytest.raises(OSError, match="Network is unreachable"):
        inside(lambda: ask(VIP4, TCP), namespace=place)
    assert lab.datapath.maps.metrics.read() == {}


def test_raw_sockets_are_left_alone(lab):
    lab.service(VIP4, TCP, [])

    def ping() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as client:
            client.connect((VIP4, PORT))

    with pytest.raises(OSError, match="Network is unreachable"):
        lab.run(ping)


def test_a_new_table_is_used_by_the_next_connection(lab):
    numbers = [lab.backend(address, TCP) for address in BACKENDS4]
    lab.service(VIP4, TCP, numbers, table=[numbers[0]] * TABLE)
    assert set(many(lab, VIP4, TCP, 5)) == {BACKENDS4[0]}
    lab.datapath.maps.tables4.swap([pack_rev_nat(7)], pack_table([numbers[2]] * TABLE))
    assert set(many(lab, VIP4, TCP, 5)) == {BACKENDS4[2]}
