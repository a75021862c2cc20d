"""Noticing that somebody changed the node's network: multicast groups of netlink, hardly read."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from enum import Flag, auto
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

    What was written to the table from ``port`` is no news. A flood that overflows the socket may
    have been about anything.
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
            listener.bind((0, groups))
            loop.add_reader(listener, _drain, listener, of, changed)
            stack.callback(loop.remove_reader, listener)
        yield


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
