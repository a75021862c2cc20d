"""The join listener: three requests over TLS, small and soon over, from anybody.

    GET  /v1/trust          the authorities of this cluster, which are no secret
    POST /v1/join           an Envelope; the answer is a Sealed
    POST /v1/join/finish    an Envelope; the answer is empty

TLS is with a certificate that this cluster's authority issues for the name ``server_name``, made
anew at each start and whenever the authority changes.
"""

import asyncio
import socket
import ssl
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from clustermesh.errors import MeshError, NoAnswer
from clustermesh.pki import MESH_DOMAIN, Authority
from clustermesh.trust.attempts import Attempts
from clustermesh.trust.messages import LONGEST, JoinError

HEAD: Final = 8 << 10  # bytes
PATIENCE: Final = 10.0  # seconds for a request
HANDSHAKE: Final = 5.0  # seconds
MOST: Final = 32  # connections at once
REFRESH: Final = 30.0  # seconds between looks at the authority's files

Handler = Callable[[bytes], Awaitable[bytes]]
"""Takes a body and gives one. Raises ``JoinError``."""


class Wrong(Exception):
    """A request that is none, with the status that says so."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    413: "Content Too Large",
    429: "Too Many Requests",
    500: "Internal Server Error",
}


def server_name(cluster: str) -> str:
    """What the listener's certificate is for; no etcd's certificate has such a name."""
    return f"{cluster}.join.{MESH_DOMAIN}"


class Listener:
    """Serves handlers by ``METHOD path``; reports refusals to ``told(source, sentence)``."""

    def __init__(
        self,
        cluster: str,
        handlers: Mapping[str, Handler],
        *,
        authority: Callable[[], Authority],
        told: Callable[[str, str], None],
        attempts: Attempts | None = None,
    ) -> None:
        self._cluster = cluster
        self._handlers = handlers
        self._authority = authority
        self._told = told
        self._attempts = attempts or Attempts()
        self._busy = 0
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_3
        self._loaded = b""
        self.bundle = b""
        """The authorities at the last ``refresh``, in PEM: anybody may ask for them, and often."""

    async def serve(self, bound: socket.socket) -> None:
        """Answer until cancelled. Raises ``CertificateError`` when there is no authority."""
        await asyncio.to_thread(self.refresh)
        server = await asyncio.start_server(self._connected, sock=bound, limit=HEAD)
        async with server:
            while True:
                await asyncio.sleep(REFRESH)
                with suppress(
                    MeshError, NoAnswer, OSError, ValueError
                ):  # meanwhile the old one goes on
                    await asyncio.to_thread(self.refresh)

    def refresh(self) -> None:
        """A new certificate when the authority is a new one. Raises ``CertificateError``."""
        authority = self._authority()
        self.bundle = authority.bundle
        if authority.certificate == self._loaded:
            return
        pair = authority.server(names=[server_name(self._cluster)])
        with tempfile.TemporaryDirectory() as folder:
            certificate, key = Path(folder, "crt"), Path(folder, "key")
            pair.write(certificate, key)
            self._tls.load_cert_chain(certificate, key)
        self._loaded = authority.certificate

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        source = str((writer.get_extra_info("peername") or ("?",))[0])
        self._busy += 1
        try:
            if self._busy <= MOST:
                async with asyncio.timeout(PATIENCE):
                    # Here and not in start_server, so that handshakes count among the MOST.
                    await writer.start_tls(self._tls, ssl_handshake_timeout=HANDSHAKE)
                    status, body = await self._answer(reader, source)
                    writer.write(_response(status, body))
                    await writer.drain()
        except (OSError, TimeoutError, EOFError):
            pass
        finally:
            self._busy -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, source: str) -> tuple[int, bytes]:
        try:
            self._admit(source)
            handler, body = await _request(reader, self._handlers)
            return 200, await handler(body)
        except Wrong as wrong:
            status, said = wrong.status, str(wrong)
            if status == 429:  # what made it so has been told
                return status, _error(said)
        except JoinError as error:
            status, said = 403, str(error)
        except (OSError, ValueError) as error:
            self._told(source, f"cannot be done: {error}")
            return 500, _error("this cluster cannot do it now; its apiserver's log says why")
        self._attempts.failed(source)
        self._told(source, said)
        return status, _error(said)

    def _admit(self, source: str) -> None:
        if not self._attempts.allowed(source):
            raise Wrong(429, "too many attempts that failed; try again in a minute")


async def _request(
    reader: asyncio.StreamReader, handlers: Mapping[str, Handler]
) -> tuple[Handler, bytes]:
    """One HTTP/1.1 request: whose it is, and its body."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (asyncio.LimitOverrunError, asyncio.IncompleteReadError):
        raise Wrong(400, "the request has no head, or one that is too long") from None
    line, *fields = head.split("\r\n")
    handler = handlers.get(" ".join(line.split(" ")[:2]))
    if handler is None or not line.endswith(" HTTP/1.1"):
        raise Wrong(404, "there is nothing of that name here")
    lengths = [
        text.partition(":")[2].strip()
        for text in fields
        if text.lower().startswith("content-length:")
    ]
    text = lengths[0] if len(lengths) == 1 else "0"
    if not (text.isascii() and text.isdecimal()):
        raise Wrong(400, "content-length: expected a number")
    if len(text) > 9 or int(text) > LONGEST:
        raise Wrong(413, f"the body has more than {LONGEST} bytes")
    return handler, await reader.readexactly(int(text))


def _response(status: int, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def _error(text: str) -> bytes:
    return msgspec.json.encode({"error": text})
