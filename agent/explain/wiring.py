"""GET /v1/network: devices, addresses, our routes and rules, as this node's kernel has them."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from agent.network.wanted import FAMILIES, Place
from clustermesh.http import Query, Refused


class NodeNetwork(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """``routes`` are those of our table, ``rules`` the priorities of the rules that lead to it."""

    table: int
    links: list[dict[str, object]]
    addresses: list[tuple[str, int]]
    routes: dict[str, list[dict[str, object]]]
    rules: dict[str, list[int]]


def answer(place: Place) -> Callable[[Query], Awaitable[NodeNetwork]]:
    """Reads in a thread: netlink blocks."""

    async def network(query: Query) -> NodeNetwork:
        if query:
            raise Refused(400, "expected no parameter")
        try:
            return await asyncio.to_thread(_read, place.table)
        except OSError as error:
            raise Refused(503, f"the kernel does not tell: {error}") from None

    return network


def _read(table: int) -> NodeNetwork:
    from agent.network.netlink import kernel
    from agent.network.routes import Table

    with kernel() as now, Table(table) as ours:
        return NodeNetwork(
            table=table,
            links=[msgspec.to_builtins(it) for it in now.links()],
            addresses=now.addresses(),
            routes={
                f"ipv{which}": [msgspec.to_builtins(it) for it in ours.read(which)]
                for which in FAMILIES
            },
            rules={f"ipv{which}": now.rules(table, which) for which in FAMILIES},
        )
