"""GET /v1/trace: which entries and routes of this node a packet between two addresses meets."""

import asyncio
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final

from agent.facts import Me
from bpf.datapath import Maps
from bpf.errors import BpfError
from bpf.layout import IpcacheKey, IpcacheValue, NodeValue
from clustermesh.http import Answer, Query, Refused
from clustermesh.status import IdentityStatus
from clustermesh.tracing import Admitted, Leg, Looked, Way

BITS: Final = {4: 32, 16: 128}
NOWHERE: Final = bytes(4)

Identities = Callable[[int], IdentityStatus | None]


def answer(me: Me, maps: Maps, identities: Identities, *, device: str) -> Answer:
    """``?from=ADDRESS&to=ADDRESS``, and ``&node=ADDRESS`` for the node that packets come from."""

    async def trace(query: Query) -> Leg:
        if unknown := sorted(query.keys() - {"from", "to", "node"}):
            known = "from, to and node"
            raise Refused(400, f"unknown parameter {unknown[0]!r}; known are {known}")
        source, destination = _address(query, "from"), _address(query, "to")
        node = _address(query, "node") if "node" in query else ""
        try:
            return Leg(
                cluster=me.cluster,
                node=me.node,
                node_ip=me.node_ip,
                device=device,
                source=looked(maps, source, identities),
                destination=looked(maps, destination, identities),
                way=await asyncio.to_thread(_way, destination),
                admitted=admitted(maps, node) if node else None,
            )
        except BpfError as error:
            raise Refused(503, f"the maps cannot be read: {error}") from None

    return trace


def looked(maps: Maps, address: str, identities: Identities) -> Looked:
    """The longest prefix that holds the address."""
    packed = ip_address(address).packed
    raw = maps.ipcache.get(IpcacheKey(packed, BITS[len(packed)]).pack())
    if raw is None:
        return Looked(address=address)
    value = IpcacheValue.unpack(raw)
    known = identities(value.identity)
    behind = value.tunnel_endpoint
    return Looked(
        address=address,
        found=True,
        identity=value.identity,
        tunnel_endpoint="" if behind == NOWHERE else str(ip_address(behind)),
        cluster=known.cluster if known else "",
        labels=known.labels if known else (),
    )


def admitted(maps: Maps, node: str) -> Admitted:
    """Which identities packets from a node may carry."""
    packed = ip_address(node).packed
    raw = maps.nodes.get(packed) if len(packed) == 4 else None
    if raw is None:
        return Admitted(node=node)
    value = NodeValue.unpack(raw)
    return Admitted(
        node=node,
        found=True,
        cluster_id=value.cluster_id,
        low=value.identity_low,
        high=value.identity_high,
    )


def _address(query: Query, name: str) -> str:
    try:
        return str(ip_address(query.get(name, "")))
    except ValueError:
        raise Refused(400, f"{name}: expected an address, found {query.get(name)!r}") from None


def _way(address: str) -> Way:
    """Blocks: it speaks netlink."""
    from agent.network.netlink import kernel

    try:
        with kernel() as now:
            return now.way_to(address)
    except OSError as error:
        return Way(error=error.strerror or str(error))
