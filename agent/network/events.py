"""Noticing that somebody changed the node's network: multicast groups of netlink, unread."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

NETLINK_ROUTE: Final = 0
NETLINK_NETFILTER: Final = 12
# linux/rtnetlink.h: bits of the groups for links, IPv4 and IPv6 addresses, routes and rules.
LINK, ADDRESS4, ROUTE4, RULE4 = 0x1, 0x10, 0x40, 0x80
ADDRESS6, ROUTE6, RULE6 = 0x100, 0x400, 0x80000
ROUTING: Final = LINK | ADDRESS4 | ROUTE4 | RULE4 | ADDRESS6 | ROUTE6 | RULE6
NFTABLES: Final = 1 << (7 - 1)  # NFNLGRP_NFTABLES


@contextmanager
def noticed(changed: Callable[[], None]) -> Iterator[None]:
    """Call ``changed`` in the event loop whenever links, routes, rules or nftables change.

    What changed is not looked at: the next comparison sees all of it. A flood that overflows the
    socket is one change, too.
    """
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        for protocol, groups in ((NETLINK_ROUTE, ROUTING), (NETLINK_NETFILTER, NFTABLES)):
            listener = stack.enter_context(
                socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
            )
            listener.bind((0, groups))
            loop.add_reader(listener, _drain, listener, changed)
            stack.callback(loop.remove_reader, listener)
        yield


def _drain(listener: socket.socket, changed: Callable[[], None]) -> None:
    for _ in range(64):
        try:
            listener.recv(1 << 16)
        except BlockingIOError:
            break
        except OSError:
            continue  # ENOBUFS: some were lost, which is a change as well
    changed()
