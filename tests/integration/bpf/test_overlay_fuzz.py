"""Packets nobody should send: none is delivered wrongly, and the counters add up."""

import json
import os
import random
import socket
import subprocess
from collections import Counter
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from struct import pack, unpack_from

import pytest

from bpf import syscalls
from bpf.counters import Reason
from bpf.layout import IpcacheKey, IpcacheValue, NodeValue
from tests.support.bpf import inside, netns, seeded
from tests.support.bpf_packets import (
    ETHERNET,
    addresses,
    assert_sound,
    ethernet,
    icmp,
    ip,
    packed,
    tcp,
    udp,
)

pytestmark = pytest.mark.root

NEXT, SHOT, REDIRECT = -1, 2, 7
RUNS = int(os.environ.get("CM_FUZZ_RUNS", "100000"))
"""Per program; tests/soak/bpf asks for more."""
SEED = int(os.environ.get("CM_FUZZ_SEED", "1"))
POD, REMOTE, UNKNOWN = "10.1.0.5", "10.2.0.7", "10.9.0.9"
POD6, REMOTE6, UNKNOWN6 = "fd00:1::5", "fd00:2::7", "fd00:9::9"
REMOTES = {packed(REMOTE), packed(REMOTE6)}
SMALLEST = {0x0800: 20, 0x86DD: 40}


def mutated(frame: bytes, chance: random.Random) -> bytes:
    """The frame with bytes changed, cut or added; never shorter than a test run accepts."""
    raw = bytearray(frame)
    for _ in range(chance.choice((0, 1, 1, 2, 4, 16))):
        raw[chance.randrange(len(raw))] = chance.randrange(256)
    if chance.random() < 0.3:
        del raw[chance.randrange(ETHERNET, len(raw)) :]
    if chance.random() < 0.1:
        raw += chance.randbytes(chance.randrange(1, 100))
    least = ETHERNET + SMALLEST.get(unpack_from("!H", raw, 12)[0], 0)
    return bytes(raw.ljust(least, b"\0"))


def frames(chance: random.Random) -> list[bytes]:
    """Well-formed packets to start from."""
    options = [
        b"",
        b"\x02\x04\x05\xb4",
        b"\1\1\1\1",
        b"\1\x02\x04\x05\xb4\1\1\0",
        chance.randbytes(40),
    ]
    seeds = []
    for source, targets in ((POD, (REMOTE, UNKNOWN)), (POD6, (REMOTE6, UNKNOWN6))):
        for target in targets:
            seeds += [tcp(source, target, options=option) for option in options]
            seeds += [udp(source, target), icmp(source, target, 8), icmp(source, target, 3)]
    seeds.append(ip(POD, UNKNOWN, 17, b"later part", fragment=10))
    return [ethernet(seed) for seed in seeds]


def destination(frame: bytes) -> bytes:
    kind = unpack_from("!H", frame, 12)[0]
    return frame[30:34] if kind == 0x0800 else frame[38:54]


def total(datapath) -> int:
    return sum(count for count, _ in datapath.maps.metrics.read().values())


@pytest.fixture
def programs(datapath, root):
    """Descriptors of both programs; two remote pods are known."""
    entries = []
    for address in (REMOTE, REMOTE6):
        raw = packed(address)
        value = IpcacheValue(0x20007, packed("192.168.1.3"))
        entries.append((IpcacheKey(raw, len(raw) * 8).pack(), value.pack()))
    datapath.maps.ipcache.put_many(entries)
    datapath.state.configure(mss=1000)
    folder = next((root / "programs").iterdir())
    found = {name: syscalls.open_pin(folder / f"cm_{name}_overlay") for name in ("to", "from")}
    yield found
    for fd in found.values():
        os.close(fd)


def test_whatever_is_sent_leaves_for_known_pods_only(programs, datapath):
    chance = seeded(SEED)
    seeds = frames(chance)
    verdicts: Counter[int] = Counter()
    for _ in range(RUNS):
        sent = mutated(chance.choice(seeds), chance)
        verdict, out, _ = syscalls.run_program(programs["to"], sent)
        verdicts[verdict] += 1
        if verdict == NEXT:
            assert destination(sent) in REMOTES
            assert len(out) == len(sent)
            assert sum(a != b for a, b in zip(sent, out, strict=True)) <= 4
        elif verdict == REDIRECT:
            assert destination(sent) not in REMOTES
            assert_sound(out[ETHERNET:])
    assert set(verdicts) == {NEXT, SHOT, REDIRECT}
    assert total(datapath) == verdicts.total() == RUNS


def test_nothing_without_tunnel_metadata_comes_in(programs, datapath):
    chance = seeded(SEED + 1)
    seeds = frames(chance)
    for _ in range(RUNS):
        sent = mutated(chance.choice(seeds), chance)
        assert syscalls.run_program(programs["from"], sent)[0] == SHOT
    (key,) = datapath.maps.metrics.read()
    assert key[0] == Reason.DROP_NO_TUNNEL_KEY
    assert total(datapath) == RUNS


# --- over a wire: forged outer sources and network identifiers -----------------------------------

KNOWN = {"192.168.77.1": 1, "192.168.77.3": 3}
STRANGERS = ("192.168.77.4", "192.168.77.5")
IDENTITIES = (0, 1, 2, 6, 10, 11, 255, 256, 0xFFFF, 0x10000, 0x10009, 0x1FFFF, 0x20000, 0x30001,
              0x3FFFF, 0x40000, 0xFFFFFF)  # fmt: skip
INNER = {
    "ipv4": ethernet(udp(REMOTE, "10.2.0.5")),
    "ipv6": ethernet(udp(REMOTE6, "fd00:2::5")),
    "tcp": ethernet(tcp(REMOTE, "10.2.0.5", options=b"\x02\x04\x05\xb4")),
    "fragment": ethernet(ip(REMOTE, "10.2.0.5", 17, b"later part", fragment=10)),
    "multicast": ethernet(udp(REMOTE, "224.0.0.5")),
    "arp": ethernet(bytes(28), protocol=0x0806),
    "loopback": ethernet(udp(REMOTE, "127.0.0.1")),
    "from loopback": ethernet(udp("127.0.0.1", "10.2.0.5")),
    "loopback of ipv6": ethernet(udp(REMOTE6, "::1")),
    "from nobody": ethernet(udp("::", "fd00:2::5")),
    "vlan": ethernet(pack("!HH", 5, 0x0800) + udp(REMOTE, "10.2.0.5"), protocol=0x8100),
    "version": ethernet(b"\x65" + udp(REMOTE, "10.2.0.5")[1:], protocol=0x0800),
}


def judged(source: str, identity: int, frame: bytes) -> Reason:
    """What design 4 "Trust" says about a packet, and then its own headers."""
    if source not in KNOWN:
        return Reason.DROP_INVALID_SOURCE
    if identity in (0, 1):
        return Reason.DROP_INVALID_IDENTITY
    if identity > 10 and identity >> 16 != KNOWN[source]:
        return Reason.DROP_INVALID_CLUSTER
    return read(frame)


def read(frame: bytes) -> Reason:
    """The rules of packet.h, written a second time."""
    kind, packet = unpack_from("!H", frame, 12)[0], frame[ETHERNET:]
    if kind not in SMALLEST:
        return Reason.DROP_UNKNOWN_L3
    version = 4 if kind == 0x0800 else 6
    if len(packet) < SMALLEST[kind] or packet[0] >> 4 != version:
        return Reason.DROP_INVALID_PACKET
    if version == 4 and packet[0] & 15 < 5:
        return Reason.DROP_INVALID_PACKET
    if any(confined(ip_address(it)) for it in addresses(packet)):
        return Reason.DROP_UNROUTABLE
    return Reason.FORWARDED


def confined(address: IPv4Address | IPv6Address) -> bool:
    """To one host or one link."""
    if address.is_multicast or address.is_loopback or address.is_unspecified:
        return True
    if isinstance(address, IPv6Address):
        return address in ip_network("fe80::/10")
    return address == IPv4Address("255.255.255.255")


def forged(chance: random.Random, *, mutate: bool) -> bytes:
    """An inner frame; a mutated one keeps its Ethernet header, and may be cut behind it."""
    frame = INNER[chance.choice(list(INNER))]
    if not mutate or frame[12:14] == b"\x81\x00":
        return frame
    raw = bytearray(frame)
    for _ in range(chance.choice((0, 1, 2, 8))):
        raw[chance.randrange(ETHERNET, len(raw))] = chance.randrange(256)
    if chance.random() < 0.4:
        del raw[chance.randrange(ETHERNET, len(raw)) :]
    return bytes(raw)


@pytest.fixture
def wire(datapath):
    """Two namespaces on a wire: a forger with many addresses, and a node with our overlay."""
    tag = f"cm-test-{os.getpid()}"
    with netns(f"{tag}-forger") as forger, netns(f"{tag}-node") as node:
        run = os.system  # fixed words and our own names only
        for command in (
            f"ip -n {forger} link add wire type veth peer name wire netns {node}",
            *(f"ip -n {forger} address add {a}/24 dev wire" for a in (*KNOWN, *STRANGERS)),
            f"ip -n {node} address add 192.168.77.2/24 dev wire",
            f"ip -n {forger} link set wire up",
            f"ip -n {node} link set wire up",
            f"ip -n {node} link add cm-overlay type vxlan external dstport 8472 nolearning",
            f"ip -n {node} link set cm-overlay arp off addrgenmode none",
            f"ip -n {node} link set cm-overlay up",
        ):
            assert run(command) == 0
        nodes = [
            (packed(address), NodeValue.of_cluster(cluster).pack())
            for address, cluster in KNOWN.items()
        ]
        datapath.maps.nodes.put_many(nodes)
        inside(lambda: datapath.attach_overlay(socket.if_nametoindex("cm-overlay")), namespace=node)
        inside(lambda: subprocess.run(["nft", "-f", "-"], input=WATCH, check=True), namespace=node)
        yield forger, node


WATCH = b"""table inet watch {
 counter delivered { }
 chain pre { type filter hook prerouting priority -400; iifname cm-overlay counter name delivered; }
}"""


def delivered(node: str) -> int:
    """Packets that the stack was given."""
    command = ["nft", "-j", "list", "counter", "inet", "watch", "delivered"]
    told = inside(lambda: subprocess.run(command, check=True, capture_output=True), namespace=node)
    return int(json.loads(told.stdout)["nftables"][1]["counter"]["packets"])


def cut_short(frame: bytes) -> bool:
    """Not even its IP header is whole: newer kernels' VXLAN drops it before we see it."""
    least = SMALLEST.get(unpack_from("!H", frame, 12)[0], 0)
    return len(frame) < ETHERNET + least


def forge(chance: random.Random, *, mutate: bool) -> tuple[Counter[Reason], Counter[Reason]]:
    """Sends packets; how those with a whole header, and the others, should be judged."""
    whole: Counter[Reason] = Counter()
    short: Counter[Reason] = Counter()
    with ExitStack() as stack:
        senders = {}
        for address in (*KNOWN, *STRANGERS):
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            senders[address] = stack.enter_context(made)
            made.bind((address, 0))
        for _ in range(RUNS):
            source, frame = chance.choice(list(senders)), forged(chance, mutate=mutate)
            identity = chance.choice((*IDENTITIES, chance.randrange(1 << 24)))
            header = pack("!II", 0x08000000, identity << 8)
            senders[source].sendto(header + frame, ("192.168.77.2", 8472))
            (short if cut_short(frame) else whole)[judged(source, identity, frame)] += 1
    return whole, short


@pytest.mark.parametrize("mutate", [False, True], ids=["well-formed", "mutated"])
def test_every_forged_packet_is_judged_by_the_rules(wire, datapath, mutate):
    forger, node = wire
    whole, short = inside(lambda: forge(seeded(SEED + 2), mutate=mutate), namespace=forger)
    refused = int(shown(node)["rx"]["errors"])
    assert refused in (0, short.total())
    counted: Counter[Reason] = Counter()
    for key, (count, _) in datapath.maps.metrics.read().items():
        counted[Reason(key[0])] += count
    assert counted == (whole if refused else whole + short)
    assert len(whole + short) == 7
    if mutate:  # the stack has its own opinion of what is malformed
        assert 0 < delivered(node) < whole[Reason.FORWARDED]
    else:
        assert delivered(node) == whole[Reason.FORWARDED]


def shown(node: str) -> dict[str, dict[str, int]]:
    """The device's own counters."""
    command = ["ip", "-n", node, "-s", "-j", "link", "show", "cm-overlay"]
    told = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return told[0]["stats64"]
