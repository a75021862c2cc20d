"""What test runs of the balancing programs share: verdicts, a service, a question, an error."""

import socket
from struct import pack

import pytest

from tests.support.bpf_balance import (
    CLIENT,
    VIP,
    Flow,
    World,
)
from tests.support.bpf_packets import (
    ICMPV6,
    TCP,
    UDP,
    checksum,
    header_size,
    icmp,
    ip,
    packed,
    protocol_of,
)

NEXT, SHOT, REDIRECT = -1, 2, 7
INGRESS, EGRESS, AT_SERVICE = 1, 2, 3
PLAIN, TOLD, STALE, BY_SLOT, FROM_NODE, RELATED, UNKNOWN = 1, 4, 5, 6, 7, 8, 9
NO_SERVICE = 158
AGAIN_MARK = 0x2000
KIND = {TCP: socket.SOCK_STREAM, UDP: socket.SOCK_DGRAM}
NODE_PORT = 30080
ERRORS = {4: [(3, 4), (3, 3), (11, 0)], 6: [(2, 0), (1, 4), (3, 0)]}
"""Types and codes of ICMP errors about a connection, by family."""

FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
PROTOCOLS = pytest.mark.parametrize("proto", [TCP, UDP], ids=["tcp", "udp"])


def serve(here: World, family: int, proto: int, *targets: str, vip: str = "", **how) -> list[int]:
    """A service with these backends; their ids."""
    ids = [here.lab.backend(target, KIND[proto], how.pop("cluster", 0)) for target in targets]
    here.lab.service(vip or VIP[family], KIND[proto], ids, **how)
    return ids


def ask(family: int, proto: int = TCP, port: int = 40000) -> Flow:
    return Flow(CLIENT[family], port, VIP[family], 80, proto)


def error(source: str, target: str, quoted: bytes, *, family: int, kind: int, code: int) -> bytes:
    """An ICMP error that quotes a packet, with the MTU that it asks for."""
    made = icmp(source, target, kind, code, pack("!HH", 0, 1400))
    size = header_size(made)
    message = made[size : size + 2] + bytes(2) + pack("!HH", 0, 1400) + quoted
    a, b = packed(source), packed(target)
    pseudo = b"" if family == 4 else a + b + pack("!II", len(message), ICMPV6)
    total = checksum(pseudo + message)
    whole = message[:2] + pack("!H", total) + message[4:]
    return ip(source, target, protocol_of(made), whole)
