"""What balancing costs each packet: runs of the tc programs, by the kernel's own clock.

`python tests/bench/bpf/balance.py`. Nanoseconds a packet, by test run, with 10, 1,000 and 10,000
services present: a packet for no service, the next packet of a connection, its answer, a new
connection, and what one walk of the agent takes over full tables.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from agent.balancing import Balancing
from bpf import syscalls
from bpf.datapath import load
from bpf.layout_ct import SERVICE, ConnectionBits, ConnectionKey, ConnectionValue
from bpf.layout_lb import ServiceKey, ServiceValue, pack_rev_nat, pack_table
from bpf.specs import DatapathSettings
from tests.support.bpf import private_bpffs
from tests.support.bpf_balance import ACK, CLIENT, POD, SYN, VIP, Flow, World, frame, world
from tests.support.bpf_packets import packed
from tests.support.bpf_services import TCP

RUNS, TURNS = 20_000, 5
ROOM = 262_144


def per_run(program: int, packets: Sequence[bytes]) -> float:
    """Nanoseconds, the least of some turns: what disturbs only adds. One call for each packet, as a
    repeated run would meet what the first has made of it."""
    found = []
    size = len(packets) // TURNS
    for start in range(0, size * TURNS, size):
        before = syscalls.program_info(program)
        for packet in packets[start : start + size]:
            syscalls.run_program(program, packet)
        after = syscalls.program_info(program)
        found.append((after.run_seconds - before.run_seconds) / (after.runs - before.runs) * 1e9)
    return min(found)


def services(made: World, count: int) -> None:
    made.begin()
    backend = made.lab.backend(POD[4], TCP)
    table = pack_table([backend] * 1021)
    maps, entries = made.lab.datapath.maps, []
    for n in range(count):
        at = bytes([10, 97, n >> 8, n & 255])
        slot = ServiceKey(at, 80, 6, 1).pack(), ServiceValue(backend, 0, n + 10).pack()
        entries += [slot, (ServiceKey(at, 80, 6).pack(), ServiceValue(0, 1, n + 10).pack())]
    maps.services4.put_many(entries)
    maps.tables4.swap([pack_rev_nat(7)], table)
    made.lab.service(VIP[4], TCP, [backend])


def walk(made: World) -> tuple[int, float]:
    """Entries of one full table, and seconds of a walk over it."""
    table = made.balancer.connections[0]
    lifetime = int(time.monotonic()) + 1000
    value = ConnectionValue(bytes(16), 1, 60, lifetime, ConnectionBits(0), 7).pack()
    client = packed(VIP[4])
    keys = (
        ConnectionKey(n.to_bytes(4, "big"), client, 1, 80, 6, SERVICE).pack() for n in range(ROOM)
    )
    table.put_many([(key, value) for key in keys])
    started = time.process_time()
    asyncio.run(Balancing(made.balancer, [], interval=1.0).collect())
    return len(dict(table.items())), time.process_time() - started


def main() -> None:
    flow = Flow(CLIENT[4], 40000, VIP[4], 80)
    strange = flow.to("192.0.2.77", 80)
    counting = syscalls.count_runs()
    with (
        tempfile.TemporaryDirectory() as folder,
        private_bpffs(Path(folder) / "bpf") as bpffs,
        load(bpffs / "clustermesh", DatapathSettings.small(ROOM)) as datapath,
        world(datapath) as made,
    ):
        print(f"{'services':>8} {'no service':>11} {'next':>6} {'answer':>7} {'new':>6}  (ns)")
        for count in (10, 1_000, 10_000):
            services(made, count)
            made.arrives(flow.packet(flags=SYN))
            there, back = made.programs["ingress"], made.programs["egress"]
            answer = frame(flow.back(POD[4], 8080).packet(flags=ACK))
            fresh = (replace(flow, source_port=port) for port in range(1024, 1024 + RUNS))
            numbers = (
                per_run(there, [frame(strange.packet(flags=ACK))] * RUNS),
                per_run(there, [frame(flow.packet(flags=ACK))] * RUNS),
                per_run(back, [answer] * RUNS),
                per_run(there, [frame(it.packet(flags=SYN)) for it in fresh]),
            )
            print("{:>8} {:>11.0f} {:>6.0f} {:>7.0f} {:>6.0f}".format(count, *numbers), flush=True)
        entries, seconds = walk(made)
        print(f"a walk over {entries} connections: {seconds:.2f} s of CPU")
    _ = counting


if __name__ == "__main__":
    main()
