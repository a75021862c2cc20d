"""What the node's network should look like, as a value that depends on the present facts only."""

import ipaddress
from collections.abc import Iterable
from typing import Final, Literal

import msgspec

Family = Literal[4, 6]
FAMILIES: Final[tuple[Family, Family]] = (4, 6)
HOST_BITS: Final[dict[Family, int]] = {4: 32, 6: 128}
OVERHEAD: Final = {4: 50, 6: 70}
"""Bytes that VXLAN adds over an underlay of this family (design: MTU)."""

WIRE_PORT: Final = 8472


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where on the node we put things; settings, the same for the life of the process.

    ``device_port`` 0: the wire's port, or a free one where another device needs that.
    ``mtu`` 0: what the underlay leaves.
    """

    device: str = "cm_vxlan"
    table: int = 8472
    priority: int = 472
    wire_port: int = WIRE_PORT
    device_port: int = 0
    mtu: int = 0
    node_ip: str = ""
    balances: bool = False
    """Whether services are balanced packet by packet: some packets then need our address."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the mesh asks of the node's network. ``complete``: every cluster has told all, so that
    what is in our table without being asked for here is nobody's.

    ``destinations`` are prefixes of remote pods; ``gateways`` those of them that go without the
    tunnel, each with the underlay address of its node, and ``direct`` prefixes that may do so.
    ``overlay`` are this node's overlay addresses, ``sources`` prefixes of the own cluster's pods,
    which may lie in each other, ``peers`` underlay addresses of remote nodes.
    """

    destinations: frozenset[str] = frozenset()
    gateways: frozenset[tuple[str, str]] = frozenset()
    direct: frozenset[str] = frozenset()
    overlay: tuple[str, ...] = ()
    sources: frozenset[str] = frozenset()
    peers: frozenset[str] = frozenset()
    complete: bool = True


def family(text: str) -> Family:
    """Of an address or a prefix in canonical text."""
    return 6 if ":" in text else 4


def of_family(texts: Iterable[str], which: Family) -> list[str]:
    """Those of one family, sorted."""
    return sorted(text for text in texts if family(text) == which)


def source_address(facts: Facts, which: Family) -> str:
    """Where the node's own traffic into the mesh comes from; empty when there is none."""
    return next(iter(of_family(facts.overlay, which)), "")


def collapsed(prefixes: Iterable[str], which: Family) -> list[str]:
    """The fewest prefixes that cover the same addresses; an nftables set allows no overlap."""
    if which == 4:
        return [
            str(net)
            for net in ipaddress.collapse_addresses(
                ipaddress.IPv4Network(text) for text in of_family(prefixes, 4)
            )
        ]
    return [
        str(net)
        for net in ipaddress.collapse_addresses(
            ipaddress.IPv6Network(text) for text in of_family(prefixes, 6)
        )
    ]
