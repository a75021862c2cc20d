"""Netlink messages are read as the kernel lays them out, and never beyond their end."""

import socket
import struct

import pytest

from agent.sockets import diag


def message(payload: bytes, kind: int = diag.BY_FAMILY) -> bytes:
    whole = struct.pack("=IHHII", 16 + len(payload), kind, 0, 0, 0) + payload
    return whole + bytes(-len(whole) % 4)


def test_every_message_of_a_datagram_is_read() -> None:
    datagram = message(b"one") + message(b"second") + message(b"", diag.DONE)
    assert list(diag.messages(datagram)) == [
        (diag.BY_FAMILY, b"one"), (diag.BY_FAMILY, b"second"), (diag.DONE, b""),
    ]  # fmt: skip


@pytest.mark.parametrize("length", [0, 3, 15, 17, 1 << 20])
def test_a_length_that_cannot_be_ends_the_reading(length: int) -> None:
    broken = struct.pack("=IHHII", length, diag.BY_FAMILY, 0, 0, 0)
    assert list(diag.messages(message(b"good") + broken)) == [(diag.BY_FAMILY, b"good")]


def body(family: int, peer: bytes) -> bytes:
    identity = struct.pack("=2s2s16s16sIQ", b"\x9b\x31", b"\x1f\x90", bytes(16), peer, 0, 77)
    return bytes([family, 1, 0, 0]) + identity + bytes(20)


@pytest.mark.parametrize(
    ("family", "peer", "address"),
    [
        (socket.AF_INET, bytes([10, 2, 0, 9]) + bytes(12), bytes([10, 2, 0, 9])),
        (socket.AF_INET6, bytes(10) + b"\xff\xff" + bytes([10, 2, 0, 9]), bytes([10, 2, 0, 9])),
        (socket.AF_INET6, b"\xfd" + bytes(14) + b"\x09", b"\xfd" + bytes(14) + b"\x09"),
    ],
)
def test_a_socket_is_known_by_its_peer_and_its_cookie(family, peer, address) -> None:
    found = diag._found(family, body(family, peer))
    assert (found.address, found.port, found.cookie) == (address, 8080, 77)
    assert len(found.identity) == 48
