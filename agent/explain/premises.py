"""GET /v1/premises: what this node knows that its cluster brings into a mesh."""

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

from agent.facts import Me
from agent.network.wanted import Place
from bpf import features
from clustermesh.findings import Premises, Underlay
from clustermesh.http import Answer, Query
from clustermesh.local import LocalService, Scope
from clustermesh.status import NodeStatus
from clustermesh.version import VERSION

SOCKETS: Final = ("tcp", "tcp6", "udp", "udp6")
LISTENING: Final = {"tcp": "0A", "udp": "07"}
"""States in /proc/net: TCP_LISTEN, and that of an unconnected UDP socket."""


def answer(
    me: Me,
    nodes: Callable[[], Sequence[NodeStatus]],
    services: Callable[[], Iterable[LocalService]],
    place: Place,
) -> Answer:
    """Only of the own cluster: others are asked themselves."""

    async def tell(_: Query) -> Premises:
        own = [node for node in nodes() if node.cluster == me.cluster]
        ranges = {cidr for node in own for cidr in (*node.ipv4_cidrs, *node.ipv6_cidrs)}
        addresses = {ip for node in own for ip in (node.ipv4, node.ipv6) if ip}
        known = list(services())
        frontends = {end.address for service in known for end in service.frontends}
        lacking = await asyncio.to_thread(_lacking)
        return Premises(
            cluster=me.cluster,
            cluster_id=me.cluster_id,
            node=me.node,
            version=VERSION,
            max_clusters=me.max_clusters,
            pod_ranges=tuple(sorted(ranges)),
            node_addresses=tuple(sorted(addresses)),
            service_addresses=tuple(sorted(frontends - {""})),
            underlay=await asyncio.to_thread(_underlay, place),
            kernel=os.uname().release,
            lacking=lacking,
            node_ports_taken=tuple(taken(known, await asyncio.to_thread(listening))),
            clock=time.time(),
        )

    return tell


def _underlay(place: Place) -> Underlay:
    from agent.network.underlay import seen  # netlink libraries take a tenth of a second

    return seen(place)


@cache
def _lacking() -> tuple[str, ...]:
    """A kernel does not change while it runs."""
    return tuple(str(feature) for feature in features.missing())


def taken(services: Iterable[LocalService], ports: set[tuple[str, int]]) -> Iterator[str]:
    """Node ports that are among ``ports``, in words. [pure]"""
    for service in services:
        for end in service.frontends:
            if end.scope == Scope.NODE_PORT and (end.protocol.lower(), end.port) in ports:
                yield f"{end.port}/{end.protocol} of {service.namespace}/{service.name}"


def listening(proc: Path = Path("/proc/net")) -> set[tuple[str, int]]:
    """Protocol and port of every socket of this namespace that waits for somebody."""
    found = set()
    for name in SOCKETS:
        protocol = name.removesuffix("6")
        with suppress(OSError):
            for line in (proc / name).read_text().splitlines()[1:]:
                local, state = (fields := line.split())[1], fields[3]
                if state == LISTENING[protocol]:
                    found.add((protocol, int(local.rpartition(":")[2], 16)))
    return found
