"""For tests of load balancing per packet: the programs by test run, a small world in the maps."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from struct import pack, unpack_from

from bpf import syscalls
from bpf.balancer import Balancer
from bpf.datapath import Datapath
from bpf.kernel_maps import KernelMap, KernelTables
from bpf.layout import IpcacheKey, IpcacheValue
from bpf.layout_ct import ConnectionKey, ConnectionValue
from bpf.maps import BpfMap, Tables
from tests.support.bpf import kernel
from tests.support.bpf_packets import (
    ETHERNET,
    TCP,
    addresses,
    checksum,
    header_size,
    ip,
    packed,
    protocol_of,
)
from tests.support.bpf_services import Lab

CLIENT = {4: "203.0.113.9", 6: "2001:db8:f::9"}
NODE = {4: "192.0.2.1", 6: "2001:db8::1"}
POD = {4: "10.1.0.5", 6: "fd00:1::5"}
"""On this node."""
NEIGHBOUR = {4: "10.1.1.5", 6: "fd00:1:1::5"}
"""On another node of the cluster."""
REMOTE = {4: "10.2.0.7", 6: "fd00:2::7"}
"""In another cluster."""
VIP = {4: "10.96.0.10", 6: "fd00:96::a"}
EVERY = {4: "0.0.0.0", 6: "::"}  # noqa: S104  # keys of entries
HOST, REMOTE_NODE = 1, 6
FIN, SYN, RST, ACK = 1, 2, 4, 16
FROM_NODE_MARK = 0x1000
SOURCE_MAC, OWN_MAC = bytes([2, 0, 0, 0, 0, 2]), bytes(6)


@dataclass(frozen=True)
class Flow:
    """Where a packet comes from and goes to."""

    source: str
    source_port: int
    target: str
    target_port: int
    proto: int = TCP

    def back(self, source: str, port: int) -> "Flow":
        """What somebody answers."""
        return Flow(source, port, self.source, self.source_port, self.proto)

    def to(self, target: str, port: int) -> "Flow":
        return replace(self, target=target, target_port=port)

    def packet(self, *, flags: int = SYN, data: bytes = b"hello", **how: object) -> bytes:
        ports = pack("!HH", self.source_port, self.target_port)
        if self.proto == TCP:
            head, at = ports + pack("!IIBBHHH", 1, 0, 5 << 4, flags, 1024, 0, 0), 16
        else:
            head, at = ports + pack("!HH", 8 + len(data), 0), 6
        a, b = packed(self.source), packed(self.target)
        size = len(head) + len(data)
        pseudo = (
            a
            + b
            + (pack("!BBH", 0, self.proto, size) if len(a) == 4 else pack("!II", size, self.proto))
        )
        total = checksum(pseudo + head + data)
        segment = head[:at] + pack("!H", total) + head[at + 2 :] + data
        return ip(self.source, self.target, self.proto, segment, **how)  # type: ignore[arg-type]


def flow_of(packet: bytes) -> Flow:
    """The way of a packet as a program left it."""
    from ipaddress import ip_address

    source, target = (str(ip_address(raw)) for raw in addresses(packet))
    ports = unpack_from("!HH", packet, header_size(packet))
    return Flow(source, ports[0], target, ports[1], protocol_of(packet))


def frame(packet: bytes) -> bytes:
    """As this node's device receives it."""
    kind = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
    return OWN_MAC + SOURCE_MAC + pack("!H", kind) + packet


def emptied(at: BpfMap | Tables) -> None:
    if isinstance(at, KernelTables):
        at.drop(list(at.keys()))
    else:
        assert isinstance(at, KernelMap)
        at.drop_many([key for key, _ in at.items()])


@dataclass
class World:
    """Both programs, and what they read and write."""

    lab: Lab
    balancer: Balancer
    programs: dict[str, int]
    summed: bool = True
    """Packets come with a sum that a device has made, which must be right afterwards, too. Where a
    packet gets another length, the kernel drops the sum, and the test run must not ask for it."""

    def begin(self) -> None:
        """A node with a pod, a neighbour and a remote cluster; no services yet."""
        self.summed = kernel() >= (6, 17)
        maps = self.lab.datapath.maps
        for field in fields(maps):
            at = getattr(maps, field.name)
            if field.name == "metrics":
                at.reset()
            else:
                emptied(at)
        for table in self.balancer.connections:
            table.drop_many([key for key, _ in table.items()])
        for family in (4, 6):
            self.know(NODE[family], HOST)
            self.know(POD[family], 0x10009)
            self.know(NEIGHBOUR[family], 0x1000A, "192.168.1.2")
            self.know(REMOTE[family], 0x20007, "192.168.1.3")
        self.lab.datapath.state.configure(cluster_id=1, stale_after=60 * 10**9)
        self.lab.datapath.state.never_stale()

    def run(self, side: str, packet: bytes, mark: int = 0) -> tuple[int, bytes, int]:
        """Verdict, packet and mark."""
        verdict, out, context = syscalls.run_program(
            self.programs[side],
            frame(packet),
            pack("<8xI180x", mark),
            flags=syscalls.CHECKSUM_COMPLETE if self.summed else 0,
        )
        return verdict, out[ETHERNET:], unpack_from("<I", context, 8)[0]

    def arrives(self, packet: bytes) -> tuple[int, bytes, int]:
        return self.run("ingress", packet)

    def leaves(self, packet: bytes) -> tuple[int, bytes]:
        return self.run("egress", packet)[:2]

    def know(self, address: str, identity: int, endpoint: str = "0.0.0.0") -> None:  # noqa: S104  # none
        raw = packed(address)
        key, value = IpcacheKey(raw, len(raw) * 8), IpcacheValue(identity, packed(endpoint))
        self.lab.datapath.maps.ipcache.put_many([(key.pack(), value.pack())])

    def connections(self) -> dict[ConnectionKey, ConnectionValue]:
        return {
            ConnectionKey.unpack(key): ConnectionValue.unpack(value)
            for table in self.balancer.connections
            for key, value in table.items()
        }

    def counts(self) -> dict[tuple[int, int, int], int]:
        """(reason, direction, line) to how often, of these programs."""
        return {
            (raw[0], raw[1], int.from_bytes(raw[2:4], "little")): count
            for raw, (count, _) in self.lab.datapath.maps.metrics.read().items()
            if raw[4] == 1
        }


@contextmanager
def world(datapath: Datapath) -> Iterator[World]:
    """Both programs, and a node to use them on."""
    with datapath.balancer() as balancer:
        programs = {
            info.name.removeprefix("cm_lb_"): syscalls.program_by_id(info.id)
            for info in balancer.programs()
        }
        made = World(Lab(datapath, "", Path()), balancer, programs)
        made.begin()
        yield made
        for fd in programs.values():
            os.close(fd)
