"""The routes of one table: read whole and written many to a message, over a socket of our own.

A general library makes objects of every message; with the routes of thousands of nodes that took
half a second, again and again. Here are the few attributes that our routes have, and no others.
Formats: linux/netlink.h, linux/rtnetlink.h; numbers are of the machine's byte order.
"""

import errno
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from struct import Struct
from typing import Final, Self

import msgspec

from agent.network.wanted import HOST_BITS, Family

AF: Final[dict[Family, int]] = {4: socket.AF_INET, 6: socket.AF_INET6}
HEADER: Final = Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
RTMSG: Final = Struct("=8BI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags
ATTRIBUTE: Final = Struct("=HH")  # length, type
NUMBER: Final = Struct("=I")
NLMSG_ERROR, NLMSG_DONE = 2, 3
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
REQUEST, ACK, DUMP, REPLACE, CREATE = 0x1, 0x4, 0x300, 0x100, 0x400  # NLM_F_...
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_TABLE = 1, 4, 5, 6, 7, 15
STATIC, UNICAST = 4, 1  # RTPROT_STATIC, RTN_UNICAST
SCOPE_UNIVERSE, SCOPE_LINK, SCOPE_NOWHERE = 0, 253, 255
SOL_NETLINK: Final = 270
NETLINK_CAP_ACK, NETLINK_GET_STRICT_CHK = 10, 12
ANSWER_TIMEOUT: Final = 10.0
"""Seconds; the kernel answers at once, but for an answer that found no room."""
AT_ONCE: Final = 64
"""Routes in a message: if all are refused, what the kernel says fits the socket's buffer."""
ASKED_AT_ONCE: Final = 16
"""Questions in a message: each answer may take 4 KB of that buffer."""
ROOM: Final = 1 << 17  # bytes of a datagram; a dump's have at most 32 KB
FINGERPRINT: Final = 0
"""The sequence number of questions whose answers are compared as they are. No other has it."""
DONE: Final = HEADER.size + NUMBER.size
"""Bytes of the message that ends a dump."""


class Route(msgspec.Struct, frozen=True):
    """A route in our table. There is one for each prefix and metric."""

    prefix: str
    metric: int
    link: int
    source: str = ""
    gateway: str = ""

    @property
    def place(self) -> tuple[str, int]:
        """What it replaces or is replaced by."""
        return self.prefix, self.metric


class Table:
    """A routing table of the network namespace in which this was made. For one thread at a time.

    ``port`` is the sender that the kernel's notifications name for what is written here.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.writes = 0
        self._sequence = 0
        self._torn = False
        """Set when answers are left that cannot be told from those to the next fingerprint."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        self._socket.settimeout(ANSWER_TIMEOUT)
        self._socket.bind((0, 0))
        self.port: int = self._socket.getsockname()[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def read(self, which: Family) -> list[Route]:
        """Every route of the table; raises ``OSError``."""
        asked = RTMSG.pack(AF[which], 0, 0, 0, 0, 0, 0, 0, 0)
        asked += _attribute(RTA_TABLE, NUMBER.pack(self.number))
        found, failed = [], 0
        for kind, _, body in self._ask([(RTM_GETROUTE, REQUEST | DUMP, asked)]):
            if kind != RTM_NEWROUTE:
                failed = _error(body)
            elif (route := _route(body, which, self.number)) is not None:
                found.append(route)
        if failed in (errno.ENOENT, errno.ESRCH):
            return []  # the kernel has no such table as long as nothing is in it
        if failed:
            raise OSError(failed, f"routes of table {self.number}: {os.strerror(failed)}")
        return found

    def fingerprint(self, which: Family) -> bytes:
        """The same as long as the table is, for a tenth of what reading it costs. Raises
        ``OSError``."""
        if self._torn:
            return os.urandom(16)
        asked = RTMSG.pack(AF[which], 0, 0, 0, 0, 0, 0, 0, 0)
        asked += _attribute(RTA_TABLE, NUMBER.pack(self.number))
        length = HEADER.size + len(asked)
        self._socket.send(HEADER.pack(length, RTM_GETROUTE, REQUEST | DUMP, FINGERPRINT, 0) + asked)
        digest, ended = blake2b(digest_size=16), False
        self._torn = True
        while not ended:
            datagram = self._socket.recv(ROOM)
            if HEADER.unpack_from(datagram)[3] == FINGERPRINT:
                digest.update(datagram)
                ended = _ends(datagram)
        self._torn = False
        return digest.digest()

    def put(self, which: Family, routes: Sequence[Route]) -> dict[Route, str]:
        """Add or replace; those that were refused, and why."""
        return self._write(RTM_NEWROUTE, REQUEST | CREATE | REPLACE, which, routes)

    def drop(self, which: Family, routes: Sequence[Route]) -> dict[Route, str]:
        """Remove, whatever their scope; those that were refused, and why."""
        return self._write(RTM_DELROUTE, REQUEST, which, routes)

    def links_to(self, which: Family, addresses: Sequence[str]) -> dict[str, int]:
        """The device on whose link each address is, 0 when it is behind a router, or nowhere."""
        links = dict.fromkeys(addresses, 0)
        head = RTMSG.pack(AF[which], HOST_BITS[which], 0, 0, 0, 0, 0, 0, 0)
        for start in range(0, len(addresses), ASKED_AT_ONCE):
            some = addresses[start : start + ASKED_AT_ONCE]
            asked = [
                (RTM_GETROUTE, REQUEST | ACK, head + _attribute(RTA_DST, _address(it)))
                for it in some
            ]
            for kind, at, body in self._ask(asked):
                if kind == RTM_NEWROUTE and body[7] == UNICAST:
                    found = dict(_attributes(body, RTMSG.size))
                    if RTA_GATEWAY not in found:
                        links[some[at]] = _number(found.get(RTA_OIF))
        return links

    def _write(
        self, kind: int, flags: int, which: Family, routes: Sequence[Route]
    ) -> dict[Route, str]:
        refused = {}
        for start in range(0, len(routes), AT_ONCE):
            some = routes[start : start + AT_ONCE]
            packed = [(kind, flags, _packed(it, which, self.number, kind)) for it in some]
            packed[-1] = (kind, flags | ACK, packed[-1][2])  # of the others it tells failures only
            self.writes += len(some)
            for _, at, body in self._ask(packed):
                if failed := _error(body):
                    refused[some[at]] = os.strerror(failed)
        return refused

    def _ask(self, asked: Sequence[tuple[int, int, bytes]]) -> Iterator[tuple[int, int, bytes]]:
        """Send messages (kind, flags, body) at once. Each answer: its kind, which message it is
        about, its body; up to the end of what is said of the last."""
        first = self._sequence + 1
        self._sequence += len(asked)
        self._socket.send(
            b"".join(
                HEADER.pack(HEADER.size + len(body), kind, flags, first + at, 0) + body
                for at, (kind, flags, body) in enumerate(asked)
            )
        )
        ended = False
        while not ended:
            for kind, sequence, body in _messages(self._socket.recv(ROOM)):
                if sequence >= first:  # else of a question whose answers were not all read
                    yield kind, sequence - first, body
                    last = sequence == self._sequence
                    ended = last and kind in (NLMSG_ERROR, NLMSG_DONE)


def _messages(datagram: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Kind, sequence number and body of each."""
    at = 0
    while at + HEADER.size <= len(datagram):
        length, kind, _, sequence, _ = HEADER.unpack_from(datagram, at)
        yield kind, sequence, datagram[at + HEADER.size : at + length]
        at += max(_aligned(length), HEADER.size)


def _ends(datagram: bytes) -> bool:
    """Whether its last message ends a dump, or its only one says that there is none."""
    length, kind, *_ = HEADER.unpack_from(datagram, max(len(datagram) - DONE, 0))
    return (length, kind) == (DONE, NLMSG_DONE) or HEADER.unpack_from(datagram)[1] == NLMSG_ERROR


def _error(body: bytes) -> int:
    """The error number that an acknowledgement, or the end of a list, carries; 0: none."""
    return -int.from_bytes(body[:4], sys.byteorder, signed=True)


def _aligned(length: int) -> int:
    return (length + 3) & ~3


def _packed(route: Route, which: Family, table: int, kind: int) -> bytes:
    """A route as the kernel is told of it, with all that tells it from others when it goes."""
    address, _, bits = route.prefix.partition("/")
    body = _attribute(RTA_DST, _address(address)) + _attribute(RTA_TABLE, NUMBER.pack(table))
    body += _attribute(RTA_PRIORITY, NUMBER.pack(route.metric))
    if kind == RTM_DELROUTE:
        return RTMSG.pack(AF[which], int(bits), 0, 0, 0, 0, SCOPE_NOWHERE, 0, 0) + body
    body += _attribute(RTA_OIF, NUMBER.pack(route.link))
    if route.gateway:
        body += _attribute(RTA_GATEWAY, _address(route.gateway))
    if route.source:
        body += _attribute(RTA_PREFSRC, _address(route.source))
    scope = SCOPE_LINK if which == 4 and not route.gateway else SCOPE_UNIVERSE
    return RTMSG.pack(AF[which], int(bits), 0, 0, 0, STATIC, scope, UNICAST, 0) + body


def _attribute(name: int, value: bytes) -> bytes:
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), name) + value  # 4 or 16 bytes: aligned


def _route(body: bytes, which: Family, table: int) -> Route | None:
    """A route of the table as the kernel tells it; None: it is another table's."""
    bits = body[1]
    found = dict(_attributes(body, RTMSG.size))
    if _number(found.get(RTA_TABLE)) != table:
        return None
    target = found.get(RTA_DST, bytes(4 if which == 4 else 16))
    return Route(
        prefix=f"{_text(target)}/{bits}",
        metric=_number(found.get(RTA_PRIORITY)),
        link=_number(found.get(RTA_OIF)),
        source=_text(found.get(RTA_PREFSRC, b"")),
        gateway=_text(found.get(RTA_GATEWAY, b"")),
    )


def table_of(body: bytes) -> int:
    """The table of a route in a notification."""
    return _number(dict(_attributes(body, RTMSG.size)).get(RTA_TABLE)) or body[4]


def _attributes(body: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    while at + ATTRIBUTE.size <= len(body):
        length, name = ATTRIBUTE.unpack_from(body, at)
        yield name, body[at + ATTRIBUTE.size : at + length]
        at += max(_aligned(length), ATTRIBUTE.size)


def _number(value: bytes | None) -> int:
    return int.from_bytes(value or b"", sys.byteorder)


def _address(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


def _text(raw: bytes) -> str:
    """An address in canonical text."""
    if not raw:
        return ""
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)
