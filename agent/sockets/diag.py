"""The kernel's list of sockets, over netlink: connected UDP sockets are found and closed.

``sock_diag(7)`` knows the network namespace in which the netlink socket was made, and no other. A
socket that is closed so stays open for its program, which is told ECONNABORTED; it has no peer any
more, and its next ``connect`` selects another backend.
"""

import os
import socket
from collections.abc import Iterator
from struct import Struct
from typing import Final, NamedTuple, Self

SOCK_DIAG: Final = 4
BY_FAMILY: Final = 20
DESTROY: Final = 21
DONE, ERROR = 3, 2
REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
ESTABLISHED: Final = 1 << 1
"""Of the bits of states the one that a connected UDP socket is in."""

FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)
MAPPED: Final = bytes(10) + b"\xff\xff"
PATIENCE: Final = 5.0
"""Seconds that the kernel, which answers at once, may take."""
ROOM: Final = 1 << 16

_HEADER: Final = Struct("=IHHII")
_REQUEST: Final = Struct("=BBBBI")
"""Of ``inet_diag_req_v2``: family, protocol, extensions, pad, states; the socket's id follows."""
_ID: Final = Struct("=2s2s16s16sIQ")
"""``inet_diag_sockid``: ports, addresses, interface, cookie."""
_ID_AT: Final = 4
"""Where it is in ``inet_diag_msg``."""


class Found(NamedTuple):
    """A connected UDP socket. ``identity`` is the kernel's name for it, as bytes."""

    family: int
    address: bytes
    """The peer's: 4 bytes also where the socket is an IPv6 one that talks IPv4."""
    port: int
    cookie: int
    identity: bytes


class Diag:
    """A netlink socket of the namespace in which it is made. Raises ``OSError``."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, SOCK_DIAG)
        self._socket.settimeout(PATIENCE)
        self._socket.bind((0, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def connected_udp(self) -> Iterator[Found]:
        """Every UDP socket that has a peer. Read to the end before anything else is asked."""
        for family in FAMILIES:
            self._ask(BY_FAMILY, REQUEST | DUMP, family, bytes(_ID.size))
            for message in self._answers():
                yield _found(family, message)

    def close(self, found: Found) -> bool:
        """Whether it was there to be closed: the cookie keeps a new socket from being mistaken."""
        self._ask(DESTROY, REQUEST | ACK, found.family, found.identity)
        try:
            for _ in self._answers():
                pass
        except FileNotFoundError:
            return False
        return True

    def _ask(self, kind: int, flags: int, family: int, identity: bytes) -> None:
        body = _REQUEST.pack(family, socket.IPPROTO_UDP, 0, 0, ESTABLISHED) + identity
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, 0, 0) + body)

    def _answers(self) -> Iterator[bytes]:
        """Payloads up to the end of the answer; an error in it is raised."""
        while True:
            for kind, payload in messages(self._socket.recv(ROOM)):
                if kind == DONE:
                    return
                if kind != ERROR:
                    yield payload
                elif number := int.from_bytes(payload[:4], "little", signed=True):
                    raise OSError(-number, os.strerror(-number))
                else:
                    return


def messages(datagram: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and payload of each netlink message; what is cut short is left out."""
    at = 0
    while at + _HEADER.size <= len(datagram):
        length, kind, *_ = _HEADER.unpack_from(datagram, at)
        if not _HEADER.size <= length <= len(datagram) - at:
            return
        yield kind, datagram[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def _found(family: int, message: bytes) -> Found:
    identity = message[_ID_AT : _ID_AT + _ID.size]
    _, port, _, peer, _, cookie = _ID.unpack(identity)
    if family == socket.AF_INET:
        peer = peer[:4]
    return Found(family, peer.removeprefix(MAPPED), int.from_bytes(port, "big"), cookie, identity)
