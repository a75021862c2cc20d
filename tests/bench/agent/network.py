"""What comparing the node's network costs. `python tests/bench/agent/network.py [--nodes 2000]`.

A node in a namespace of its own; a route for each node of other clusters. Wall and CPU of the
thread that compares; the last line is what the event loop concludes from the change of one node.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).parents[3]))

from agent.network.asked import Asking
from agent.network.demand import Change, Demand
from agent.network.network import Round, follow, reconcile
from agent.network.routes import Table
from agent.network.routing import Routing
from agent.network.wanted import Facts, Place
from agent.probes.prober import Prober, ProbeSettings
from clustermesh.keys import Kind
from tests.support.bpf import inside, netns
from tests.support.mesh import Agent, node

PLACE = Place(node_ip="192.0.2.1")
T = TypeVar("T")


def facts(count: int) -> Facts:
    return Facts(
        destinations=frozenset(f"10.{n >> 8}.{n & 255}.0/24" for n in range(count)),
        overlay=("172.16.0.1",),
        sources=frozenset({"172.16.0.0/24"}),
        peers=frozenset(f"192.168.{n >> 8}.{n & 255}" for n in range(count)),
    )


def timed(what: str, work: Callable[[], T]) -> T:
    wall, cpu = time.perf_counter(), time.thread_time()
    found = work()
    wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
    print(f"{what:<60}{wall * 1e3:>8.1f} ms wall{cpu * 1e3:>8.1f} ms CPU")
    return found


def attach_nothing(_: int) -> bool:
    return False


def rounds(count: int) -> None:
    """In the node's namespace."""
    few, many = facts(1), facts(count)
    rest = tuple(many.destinations - few.destinations)
    one = tuple(facts(count + 1).destinations - many.destinations)
    with Table(PLACE.table) as table:
        routing = Routing(table)

        def whole(wanted: Facts) -> Round:
            return reconcile(PLACE, wanted, attach_nothing, routing=routing)

        def some(change: Change) -> Round:
            return follow(change, many, last, routing)

        last = whole(few)
        timed(f"{count} routes written", lambda: some(Change(wanted=rest)))
        last = whole(many)
        timed("all of it compared, nothing in doubt", lambda: whole(many))
        routing.doubt()
        timed("all of it compared, our table read", lambda: whole(many))
        routing.doubt()
        timed("all of it compared, our table as it was", lambda: whole(many))
        timed("one more route", lambda: some(Change(wanted=one)))
        timed("one route less", lambda: some(Change(gone=one)))


def conclusions(count: int) -> None:
    """In the event loop: from a changed node to what the network and the probes are told."""
    agent, prober, demand = Agent(), Prober("a1", ProbeSettings(), told=lambda _: None), Demand()
    asking = Asking(agent.me, agent.dataplane, demand)
    nodes = [
        node("cluster-b", f"n{n}", f"192.168.{n >> 8}.{n & 255}", f"10.{n >> 8}.{n & 255}.0/24")
        for n in range(count)
    ]
    dataplane = agent.dataplane

    def tell() -> None:
        for cluster, name, address in dataplane.take_overlays():
            prober.aim(cluster, name, address)
        asking.ask(pods=frozenset(), complete=True)

    dataplane.on_routes = tell
    agent.expect("cluster-b").nodes(*nodes)

    def join() -> None:
        agent.synced("cluster-b", kinds=[Kind.NODES]).settle()

    timed("all of them are told, in the event loop, in slices", join)
    assert len(demand.change().wanted) == count
    ranges = [f"11.0.{n}.0/24" for n in range(100)]

    def change() -> None:
        for cidr in ranges:
            agent.nodes(node("cluster-b", "n7", "192.168.0.7", cidr)).settle()

    timed(f"one node changes, {len(ranges)} times, in the event loop", change)
    assert len(demand.change().wanted) == 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=2000)
    count = parser.parse_args().nodes
    with netns(f"cm-bench-net-{os.getpid()}") as name:
        for words in (
            "link add eth0 mtu 1500 type veth peer name far0",
            "link set far0 up",
            "link set eth0 up",
            "addr add 192.0.2.1/24 dev eth0",
        ):
            subprocess.run(["ip", "-n", name, *words.split()], check=True)
        inside(lambda: rounds(count), namespace=name)
    conclusions(count)


if __name__ == "__main__":
    main()
