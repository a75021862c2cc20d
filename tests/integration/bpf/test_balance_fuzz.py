"""Packets nobody should send, through the programs that balance: all goes where a service says.

Every outcome is judged: untouched bytes, or an end of the packet that a service or a backend has.
"""

import os
import random
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address
from struct import pack, unpack_from

import pytest

from bpf import syscalls
from bpf.datapath import load
from bpf.layout_lb import ServiceFlag
from bpf.specs import DatapathSettings
from tests.support.bpf import private_bpffs, seeded
from tests.support.bpf_balance import (
    ACK,
    CLIENT,
    EVERY,
    NODE,
    POD,
    REMOTE,
    SYN,
    VIP,
    Flow,
    World,
    frame,
    world,
)
from tests.support.bpf_packets import ETHERNET, TCP, UDP, icmp, ip, part6
from tests.support.bpf_services import TCP as STREAM
from tests.support.bpf_services import UDP as DATAGRAM

pytestmark = pytest.mark.root

NEXT, SHOT, REDIRECT = -1, 2, 7
RUNS = int(os.environ.get("CM_FUZZ_RUNS", "100000")) // 4
SEED = int(os.environ.get("CM_FUZZ_SEED", "1"))
NODE_PORT, EMPTY_PORT = 30080, 81
SMALLEST = {0x0800: 20, 0x86DD: 40}
KIND = {TCP: STREAM, UDP: DATAGRAM}


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Iterator[World]:
    """Services of every kind, and one with nobody behind it."""
    with (
        private_bpffs(tmp_path_factory.mktemp("fuzz") / "bpf") as folder,
        load(folder / "clustermesh", DatapathSettings.small()) as datapath,
        world(datapath) as made,
    ):
        for family in (4, 6):
            for proto, kind in KIND.items():
                lab, number = made.lab, 10 * family + proto % 10
                ids = [lab.backend(it[family], kind) for it in (POD, REMOTE)]
                sticky = {"flags": ServiceFlag.SESSION_AFFINITY, "timeout": 100}
                lab.service(VIP[family], kind, ids, rev_nat=number, **sticky)
                lab.service(VIP[family], kind, [], rev_nat=100 + number, port=EMPTY_PORT)
                lab.service(
                    EVERY[family], kind, ids, rev_nat=200 + number, port=NODE_PORT,
                    flags=ServiceFlag.NODE_PORT,
                )  # fmt: skip
        yield made


def flows(chance: random.Random) -> Iterator[Flow]:
    for family in (4, 6):
        for proto in KIND:
            port = chance.randrange(1, 65536)
            asked = Flow(CLIENT[family], port, VIP[family], 80, proto)
            yield from (asked, asked.to(VIP[family], EMPTY_PORT), asked.to(NODE[family], NODE_PORT))
            yield from (asked.back(POD[family], 8080), asked.back(REMOTE[family], 8080))


def seeds(chance: random.Random) -> list[bytes]:
    """Well-formed frames to start from, errors about them, and parts."""
    found = []
    for flow in flows(chance):
        packet = flow.packet(flags=chance.choice((SYN, ACK, SYN | ACK, 0x11, 4)))
        found.append(packet)
        family = 4 if "." in flow.source else 6
        for kind in (3, 11) if family == 4 else (1, 2):
            quoted = icmp(NODE[family], flow.source, kind, 4, pack("!HH", 0, 1400))
            head = quoted[: len(quoted) - 8]
            found.append(head + packet)
        if family == 4:
            found.append(flow.packet(fragment=0x2000))
            found.append(ip(flow.source, flow.target, flow.proto, bytes(64), fragment=9))
        else:
            found += [part6(packet, start=0, end=24), part6(packet, start=24)]
    return [frame(packet) for packet in found]


def mutated(whole: bytes, chance: random.Random) -> bytes:
    raw = bytearray(whole)
    for _ in range(chance.choice((0, 0, 1, 1, 2, 4, 16))):
        raw[chance.randrange(12, len(raw))] = chance.randrange(256)
    if chance.random() < 0.3:
        del raw[chance.randrange(ETHERNET, len(raw)) :]
    least = ETHERNET + SMALLEST.get(unpack_from("!H", raw, 12)[0], 0)
    return bytes(raw.ljust(least, b"\0"))


def ends(raw: bytes) -> tuple[str, str]:
    kind = unpack_from("!H", raw, 12)[0]
    a, b, size = (26, 30, 4) if kind == 0x0800 else (22, 38, 16)
    return str(ip_address(raw[a : a + size])), str(ip_address(raw[b : b + size]))


BACKENDS = {*POD.values(), *REMOTE.values()}
SERVICES = {*VIP.values(), *NODE.values()}


def judge(side: str, sent: bytes, out: bytes) -> str:
    """What became of a packet that goes on; only the right end may be another."""
    if out == sent:
        return "untouched"
    assert len(out) == len(sent)
    (source, target), (after_source, after_target) = ends(sent), ends(out)
    if side == "ingress":
        assert after_source == source
        assert target in SERVICES
        assert after_target in BACKENDS
        return "to a backend"
    assert after_target == target
    assert after_source == source or (source in BACKENDS and after_source in SERVICES)
    return "to a client"


@pytest.mark.parametrize("side", ["ingress", "egress"])
def test_whatever_comes_goes_where_a_service_says_or_on_untouched(here: World, side):
    chance = seeded(SEED + len(side))
    starts = seeds(chance)
    if side == "egress":  # connections whose answers there are to be
        for start in starts:
            syscalls.run_program(here.programs["ingress"], start)
    before = here.counts()
    found: Counter[str] = Counter()
    for _ in range(RUNS):
        sent = mutated(chance.choice(starts), chance)
        verdict, out, _ = syscalls.run_program(here.programs[side], sent)
        if verdict == NEXT:
            found[judge(side, sent, out)] += 1
        elif verdict == REDIRECT:
            assert side == "ingress"
            assert ends(out)[0] in SERVICES
            found["told"] += 1
        else:
            assert verdict == SHOT
            assert side == "ingress"
            found["dropped"] += 1
    counts = Counter(here.counts())
    counts.subtract(before)
    assert found["told"] == counts[158, 1, 4]
    assert found["dropped"] == counts[158, 1, 1]
    direction = 1 if side == "ingress" else 2
    on = sum(n for (reason, way, _), n in counts.items() if reason == 0 and way == direction)
    assert on == found["to a backend"] + found["to a client"]
    usual = (
        {"untouched", "to a backend", "told"} if side == "ingress" else {"untouched", "to a client"}
    )
    assert usual <= found.keys()


def test_random_bytes_are_left_alone(here: World):
    chance = seeded(SEED)
    for _ in range(RUNS // 10):
        kind = chance.choice((0x0800, 0x86DD, 0x0806, chance.randrange(1 << 16)))
        sent = bytes(12) + pack("!H", kind) + chance.randbytes(chance.randrange(40, 200))
        for program in here.programs.values():
            verdict, out, _ = syscalls.run_program(program, sent)
            assert (verdict, out) == (NEXT, sent)
