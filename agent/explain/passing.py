"""Do datagrams on the overlay's port pass between two nodes? Sent by one agent, heard by another.

They look like VXLAN without an identity, which every VXLAN device drops; a raw socket sees them
where the node's own firewall has let them in. Nothing of the mesh needs to be connected.
"""

import asyncio
import errno
import os
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from ctypes import addressof, create_string_buffer
from typing import Final

import msgspec

from agent.facts import Me
from clustermesh.findings import Called, Heard
from clustermesh.http import Answer, Query, Refused

MAGIC: Final = 0x00_63_6D_70
"""The first word: VXLAN flags without the bit that says that there is an identity."""

LONGEST: Final = 10.0
"""Seconds for which one listens at most."""
ROUNDS: Final = 3
PAUSE: Final = 0.1
"""Seconds between rounds: one lost datagram says nothing."""

HEADERS: Final = {socket.AF_INET: 28, socket.AF_INET6: 48}
"""Bytes of IP and UDP before a payload."""
SO_ATTACH_FILTER: Final = 26
IP_MTU_DISCOVER: Final = 10
IPV6_MTU_DISCOVER: Final = 23
DO_NOT_FRAGMENT: Final = 3
NONCE: Final = 16


class Passing:
    """Listens and calls on the ports of one node's overlay."""

    def __init__(self, me: Me, port: int) -> None:
        """``port`` is the overlay's on the wire."""
        self._name = f"{me.cluster}/{me.node}"
        self._node_ip = me.node_ip
        self._port = port
        self._family = socket.AF_INET6 if ":" in me.node_ip else socket.AF_INET

    def actions(self) -> dict[str, Answer]:
        """Paths and their answers; a raw socket is not for everybody."""
        return {"/v1/passing/hear": self.hear, "/v1/passing/call": self.call}

    async def hear(self, query: Query) -> AsyncIterator[bytes]:
        """POST /v1/passing/hear: a line once it listens, then one for each datagram."""
        nonce, seconds = _nonce(query), min(_number(query, "seconds"), LONGEST)
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        try:
            listener = _listener(self._family)
        except OSError as error:
            raise Refused(503, f"a raw socket cannot be opened: {error.strerror}") from None
        return self._lines(listener, nonce, until)

    async def _lines(
        self, listener: socket.socket, nonce: str, until: float
    ) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        with listener:
            yield b"{}\n"
            while (left := until - loop.time()) > 0:
                try:
                    data, source = await asyncio.wait_for(
                        loop.sock_recvfrom(listener, 65535), timeout=left
                    )
                except TimeoutError:
                    return
                if heard := self._heard(data, source[0], nonce):
                    yield msgspec.json.encode(heard) + b"\n"

    def _heard(self, data: bytes, source: str, nonce: str) -> Heard | None:
        ip = (data[0] & 0x0F) * 4 if self._family == socket.AF_INET else 0
        payload = data[ip + 8 :]
        told = payload[8 : 8 + NONCE]
        if told != nonce.encode():
            return None
        sender = payload[8 + NONCE :].partition(b"\0")[0].decode(errors="replace")
        size = len(payload) + HEADERS[self._family]
        return Heard(sender=sender, source=source, size=size)

    async def call(self, query: Query) -> list[Called]:
        """POST /v1/passing/call: some datagrams to each address, small ones and one of ``size``."""
        nonce, size = _nonce(query), int(_number(query, "size"))
        addresses = [it for it in query.get("addresses", "").split(",") if it]
        errors: dict[str, str] = {}
        for _ in range(ROUNDS):
            for address in addresses:
                for each in (0, size):
                    errors |= self._send(address, nonce, each)
            await asyncio.sleep(PAUSE)
        return [Called(address=it, error=errors.get(it, "")) for it in addresses]

    def _send(self, address: str, nonce: str, size: int) -> dict[str, str]:
        """The error of a datagram, by address. ``size`` is that of the IP packet, 0: small."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        text = nonce.encode() + self._name.encode() + b"\0"
        payload = struct.pack("!II", MAGIC, 0) + text
        payload = payload.ljust(size - HEADERS[family], b"\0")
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as sender:
                level = socket.IPPROTO_IPV6 if family == socket.AF_INET6 else socket.IPPROTO_IP
                option = IPV6_MTU_DISCOVER if family == socket.AF_INET6 else IP_MTU_DISCOVER
                sender.setsockopt(level, option, DO_NOT_FRAGMENT)
                if family == self._family:
                    sender.bind((self._node_ip, 0))
                sender.setblocking(False)  # noqa: FBT003  # the standard library's signature
                sender.sendto(payload, (address, self._port))
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                return {address: f"too long for this node's own link: {size} bytes"}
            return {address: os.strerror(error.errno or 0)}
        return {}


def _listener(family: socket.AddressFamily) -> socket.socket:
    """A raw socket that sees nothing but datagrams that begin with our word. To whatever port: for
    nodes of the mesh the one on the wire may be rewritten."""
    made = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_UDP)
    try:
        with _filter(family) as program:
            made.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
    except OSError:
        made.close()
        raise
    return made


@contextmanager
def _filter(family: socket.AddressFamily) -> Iterator[bytes]:
    """A classic BPF program (linux/filter.h); raw IPv4 sockets see the IP header, IPv6 ones not."""
    skip = (0xB1, 0, 0, 0) if family == socket.AF_INET else (0x01, 0, 0, 0)  # x = header length
    steps = (
        skip,
        (0x40, 0, 0, 8),  # a = the payload's first word
        (0x15, 0, 1, MAGIC),
        (0x06, 0, 0, 0xFFFF),
        (0x06, 0, 0, 0),
    )
    code = b"".join(struct.pack("HBBI", *step) for step in steps)
    room = create_string_buffer(code, len(code))
    yield struct.pack("HL", len(steps), addressof(room))


def _nonce(query: Query) -> str:
    nonce = query.get("nonce", "")
    if len(nonce) != NONCE or not nonce.isalnum():
        raise Refused(400, f"nonce: expected {NONCE} letters and digits")
    return nonce


def _number(query: Query, name: str) -> float:
    try:
        return max(0.0, float(query.get(name, "0")))
    except ValueError:
        raise Refused(400, f"{name}: {query[name]!r}, expected a number") from None
