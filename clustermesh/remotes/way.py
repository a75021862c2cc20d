"""How far one gets towards an etcd server, step by step: name, TCP, TLS. ``steps`` block.

The first step that fails is the cause; nothing after it is tried. Codes are for programs and never
change their meaning.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final, NamedTuple

import msgspec
from cryptography import x509

from clustermesh.findings import Finding, Reach, Result
from clustermesh.http import Query, Refused
from kvstore.config import ConfigError, EtcdConfig
from kvstore.dial import addresses

TIMEOUT: Final = 3.0
ANSWER: Final = 0.5
"""Seconds within which a server that refuses a client certificate says so."""

SOON: Final = timedelta(days=30)

_EXPIRED, _NOT_YET, _WRONG_NAME, _WRONG_IP = 10, 9, 62, 64
"""OpenSSL's verification codes."""
_OF_CLIENTS: Final = (
    "certificate", "unknown ca", "access denied", "decrypt error", "handshake failure",
)  # fmt: skip
"""Words of the alerts by which a server refuses a client."""


class Server(NamedTuple):
    """Where to go, and who must be there. No ``authority``: plain TCP."""

    host: str
    port: int
    name: str
    authority: str = ""
    certificate: str = ""
    key: str = ""

    @property
    def where(self) -> str:
        told = f"[{self.host}]" if ":" in self.host else self.host
        return f"{told}:{self.port}"


class Stopped(Exception):
    """A step failed: the finding is the cause."""

    def __init__(self, code: str, seen: str, fix: str) -> None:
        super().__init__(seen)
        self.code, self.seen, self.fix = code, seen, fix


def steps(server: Server) -> Iterator[Finding]:
    """A finding for each step, the failed one last."""
    try:
        address = _resolve(server)
        told = f"{server.host} is {address}" if address != server.host else "needs no look-up"
        yield _ok("DNS", server, told)
        with _connect(server, address) as plain:
            yield _ok("TCP", server, "accepts connections")
            if server.authority:
                told, until = _handshake(server, plain)
                if until is not None and until - datetime.now(UTC) < SOON:
                    yield _expiring(server, until)
                yield _ok("TLS", server, told)
    except Stopped as end:
        yield Finding(
            code=end.code, result=Result.FAILED, where=server.where, seen=end.seen, fix=end.fix
        )


async def reach(query: Query) -> list[Finding]:
    """POST /v1/reach: name, TCP and TLS of servers that are not configured (yet)."""
    try:
        asked = msgspec.json.decode(query.get("reach", ""), type=Reach)
        aliases = {name: tuple(ips) for name, ips in asked.host_aliases.items()}
        config = EtcdConfig.of(*asked.endpoints, host_aliases=aliases)
    except (msgspec.MsgspecError, ConfigError) as error:
        raise Refused(400, f"reach: {error}") from None
    return [
        finding
        for each in servers(config, asked.authority)
        for finding in await asyncio.to_thread(walk, each)
    ]


def servers(config: EtcdConfig, authority: str) -> Iterator[Server]:
    """Of a client file, in a fixed order; ``authority`` is the PEM of whom to trust."""
    for address in sorted(addresses(config, Random(0)), key=lambda each: each.endpoint.text):  # noqa: S311  # an order, no secret
        end = address.endpoint
        yield Server(
            host=end.host,
            port=end.port,
            name=address.server_name or end.host,
            authority=authority if end.secure else "",
            certificate=config.cert_file or "",
            key=config.key_file or "",
        )


def walk(server: Server) -> list[Finding]:
    """All steps; blocks for some seconds at most."""
    return list(steps(server))


def _ok(code: str, server: Server, seen: str) -> Finding:
    return Finding(code=code, result=Result.OK, where=server.where, seen=seen)


def _resolve(server: Server) -> str:
    with suppress(ValueError):
        return str(ipaddress.ip_address(server.host))
    try:
        found = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Stopped(
            "DNS_FAILED",
            f"the name {server.host} has no address here: {error.strerror or error}",
            "give the endpoint an address under cilium-host-aliases, or put the name into the DNS",
        ) from None
    return str(found[0][4][0])


def _connect(server: Server, address: str) -> socket.socket:
    try:
        return socket.create_connection((address, server.port), timeout=TIMEOUT)
    except ConnectionRefusedError:
        raise Stopped(
            "TCP_REFUSED",
            f"{address} refuses TCP port {server.port}: nobody listens there",
            "start the peer's etcd (clustermesh-apiserver), or correct the endpoint's port",
        ) from None
    except TimeoutError:
        raise Stopped(
            "TCP_TIMEOUT",
            f"{address} does not answer on TCP port {server.port} within {TIMEOUT:g} s",
            "look for a firewall between this node and the peer's control plane, or a dead host",
        ) from None
    except OSError as error:
        raise Stopped(
            "TCP_UNREACHABLE",
            f"{address} cannot be reached: {error.strerror or error}",
            "give this node a route to the peer's control plane, or correct the endpoint",
        ) from None


def _handshake(server: Server, plain: socket.socket) -> tuple[str, datetime | None]:
    """What is said of the server, and the end of its certificate where it could be seen."""
    context = _context(server)
    try:
        with context.wrap_socket(plain, server_hostname=server.name) as secure:
            if server.certificate:
                _listen(secure)
            return _who(secure)
    except ssl.SSLCertVerificationError as error:
        raise _untrusted(server, error) from None
    except ssl.SSLError as error:
        if not server.certificate and "certificate" in _reason(error):
            return "it is who it should be, and asks for a client certificate", None
        raise _ended(_reason(error)) from None
    except TimeoutError:
        raise Stopped(
            "TLS_BROKEN",
            f"the port is open, but nothing comes back within {TIMEOUT:g} s of the TLS handshake",
            "see whether the peer's etcd is stopped or overloaded, and whether it is what listens"
            " there",
        ) from None
    except OSError as error:
        raise _ended(str(error.strerror or error)) from None


def _ended(reason: str) -> Stopped:
    """The handshake failed after the server was believed: because of us, or it speaks no TLS."""
    if any(word in reason for word in _OF_CLIENTS):
        return Stopped(
            "TLS_REFUSED",
            f"the server ends the TLS handshake: {reason}",
            "the server does not take the client certificate: issue it anew by the peer's CA"
            " (meshctl connect does), and see that the server trusts that CA",
        )
    return Stopped(
        "TLS_BROKEN",
        f"the connection ends within the TLS handshake: {reason}",
        "see whether an etcd with TLS listens there, and no proxy in front of it",
    )


def _context(server: Server) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=server.authority)
    except (ssl.SSLError, ValueError) as error:
        raise Stopped(
            "CA_UNREADABLE",
            f"the CA certificate cannot be read: {_reason(error)}",
            "give the peer's CA certificate as PEM (meshctl connect writes it)",
        ) from None
    context.set_alpn_protocols(["h2"])
    if server.certificate:
        try:
            context.load_cert_chain(server.certificate, server.key)
        except (OSError, ssl.SSLError) as error:
            raise Stopped(
                "CLIENT_CERT_UNREADABLE",
                f"{server.certificate} and {server.key} are no pair that can be used:"
                f" {_reason(error)}",
                "issue the client certificate anew (meshctl connect does)",
            ) from None
    return context


def _listen(secure: ssl.SSLSocket) -> None:
    """TLS 1.3 refuses a client after its handshake: hear whether the server goes on."""
    secure.settimeout(ANSWER)
    with suppress(TimeoutError):
        secure.recv(1)


def _who(secure: ssl.SSLSocket) -> tuple[str, datetime]:
    found = x509.load_der_x509_certificate(secure.getpeercert(binary_form=True) or b"")
    until = found.not_valid_after_utc
    return f"{found.subject.rfc4514_string()}, valid until {until:%Y-%m-%d}", until


def _expiring(server: Server, until: datetime) -> Finding:
    return Finding(
        code="TLS_EXPIRES",
        result=Result.WARNING,
        where=server.where,
        seen=f"the server's certificate is valid until {until:%Y-%m-%d} only",
        fix="renew the certificate of the peer's etcd",
    )


def _untrusted(server: Server, error: ssl.SSLCertVerificationError) -> Stopped:
    said = error.verify_message
    if error.verify_code == _EXPIRED:
        return Stopped(
            "TLS_EXPIRED",
            f"a certificate of the server has expired: {said}",
            "renew the server's certificate, or its CA; compare the clocks of both hosts",
        )
    if error.verify_code == _NOT_YET:
        return Stopped(
            "TLS_NOT_YET_VALID",
            f"a certificate of the server is not valid yet: {said}",
            "compare the clocks of both hosts",
        )
    if error.verify_code in (_WRONG_NAME, _WRONG_IP):
        return Stopped(
            "TLS_WRONG_NAME",
            f"the server's certificate is not for {server.name}: {said}",
            f"issue the server's certificate for {server.name}, or correct the endpoint's name",
        )
    return Stopped(
        "TLS_WRONG_CA",
        f"the server's certificate is not vouched for by the CA that is trusted here: {said}",
        "take over the peer's present CA certificate (meshctl connect does)",
    )


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return str(reason).replace("_", " ").lower()
