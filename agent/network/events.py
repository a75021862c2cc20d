"""Noticing that somebody changed the node's network: multicast groups of netlink, hardly read."""

import asyncio
import ctypes
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from enum import Flag, auto
from struct import Struct
from typing import Final

from agent.network.routes import HEADER, RTM_DELROUTE, RTM_NEWROUTE, table_of

NETLINK_ROUTE: Final = 0
NETLINK_NETFILTER: Final = 12
# linux/rtnetlink.h: bits of the groups for links, IPv4 and IPv6 addresses, routes and rules.
LINK, ADDRESS4, ROUTE4, RULE4 = 0x1, 0x10, 0x40, 0x80
ADDRESS6, ROUTE6, RULE6 = 0x100, 0x400, 0x80000
ROUTING: Final = LINK | ADDRESS4 | ROUTE4 | RULE4 | ADDRESS6 | ROUTE6 | RULE6
NFTABLES: Final = 1 << (7 - 1)  # NFNLGRP_NFTABLES
RTM_NEWRULE, RTM_DELRULE = 32, 33
SO_ATTACH_FILTER: Final = 26
INSTRUCTION: Final = Struct("=HBBI")  # linux/filter.h: sock_filter
LOAD_HALF, LOAD_WORD, IF_EQUAL, RETURN = 0x28, 0x20, 0x15, 0x06
TYPE_AT, PORT_AT = 4, 12
"""Where in nlmsghdr they are."""


class News(Flag):
    """What a notification is about.

    ``TABLE``: our routing table, or devices and addresses, with which the kernel takes routes away
    and tells nobody. ``AROUND``: rules and nftables. ``ELSEWHERE``: another routing table.
    """

    NONE = 0
    TABLE = auto()
    AROUND = auto()
    ELSEWHERE = auto()


@contextmanager
def noticed(changed: Callable[[News], None], *, port: int, table: int) -> Iterator[None]:
    """Call ``changed`` in the event loop whenever links, routes, rules or nftables change.

    What was written to the table from ``port`` is no news: the kernel keeps it to itself, or every
    route of ours would wake the loop. A flood that overflows the socket may have been about
    anything.
    """
    loop = asyncio.get_running_loop()

    def of_routing(datagram: bytes) -> News:
        return meaning(datagram, port=port, table=table)

    def of_nftables(_: bytes) -> News:
        return News.AROUND

    with ExitStack() as stack:
        for protocol, groups, of in (
            (NETLINK_ROUTE, ROUTING, of_routing),
            (NETLINK_NETFILTER, NFTABLES, of_nftables),
        ):
            listener = stack.enter_context(
                socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
            )
            if protocol == NETLINK_ROUTE:
                _spare_routes_of(port, listener)
            listener.bind((0, groups))
            loop.add_reader(listener, _drain, listener, of, changed)
            stack.callback(loop.remove_reader, listener)
        yield


def _spare_routes_of(port: int, listener: socket.socket) -> None:
    """Notifications of routes that this port has written are not delivered."""
    program = b"".join(
        INSTRUCTION.pack(*it)
        for it in (
            (LOAD_WORD, 0, 0, PORT_AT),
            (IF_EQUAL, 0, 4, _loaded(port, 4)),
            (LOAD_HALF, 0, 0, TYPE_AT),
            (IF_EQUAL, 1, 0, _loaded(RTM_NEWROUTE, 2)),
            (IF_EQUAL, 0, 1, _loaded(RTM_DELROUTE, 2)),
            (RETURN, 0, 0, 0),
            (RETURN, 0, 0, 0xFFFFFFFF),
        )
    )
    kept = ctypes.create_string_buffer(program, len(program))
    described = Struct("@HP").pack(len(program) // INSTRUCTION.size, ctypes.addressof(kept))
    listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, described)


def _loaded(number: int, size: int) -> int:
    """A number of the machine's byte order, as the filter loads it: in the network's."""
    return int.from_bytes(number.to_bytes(size, sys.byteorder), "big")


def meaning(datagram: bytes, *, port: int, table: int) -> News:
    """Of a notification about links, addresses, routes or rules. [pure]"""
    _, kind, _, _, sender = HEADER.unpack_from(datagram)
    if kind in (RTM_NEWRULE, RTM_DELRULE):
        return News.AROUND
    if kind not in (RTM_NEWROUTE, RTM_DELROUTE):
        return News.TABLE
    if table_of(datagram[HEADER.size :]) != table:
        return News.ELSEWHERE
    return News.NONE if sender == port else News.TABLE


def _drain(
    listener: socket.socket, of: Callable[[bytes], News], changed: Callable[[News], None]
) -> None:
    news = News.NONE
    for _ in range(64):
        try:
            news |= of(listener.recv(1 << 16))
        except BlockingIOError:
            break
        except OSError:  # ENOBUFS: some were lost
            news |= News.TABLE | News.AROUND
    if news:
        changed(news)
