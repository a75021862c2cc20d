"""HTTP to one API server: bytes in and out, every refusal and silence as one of few failures."""

import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from types import TracebackType
from typing import Self

import aiohttp

from clustermesh.sources.kubernetes.access import Access, Credentials
from clustermesh.sources.kubernetes.failures import Unreachable, failure
from clustermesh.sources.kubernetes.lines import Lines
from clustermesh.sources.kubernetes.request import JSON, Request
from clustermesh.sources.kubernetes.settings import KubernetesSettings
from clustermesh.version import VERSION

_HEADERS = {
    "Accept": JSON,
    "Accept-Encoding": "identity",  # the server is near; compressing costs both sides CPU
    "User-Agent": f"clustermesh/{VERSION}",
}
_READ = 256 * 1024
_GRACE = 30.0
"""Seconds beyond the asked-for end of a watch before its silence is taken for a dead server."""


class Api:
    """The API server of one kubeconfig or pod. Use as ``async with``."""

    def __init__(
        self, settings: KubernetesSettings, credentials: Credentials | None = None
    ) -> None:
        """Nothing is connected before something is asked."""
        self._settings = settings
        self._credentials = credentials or Credentials(settings)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Make room for connections."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, socket_factory=_socket),
            headers=_HEADERS,
            auto_decompress=False,
            read_bufsize=_READ,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> bytes:
        """The body of an answer. Raises an ``ApiFailure``."""
        return await self.send(Request("GET", path, query or {}))

    async def send(self, request: Request) -> bytes:
        """The body of an answer. Raises an ``ApiFailure``."""
        async with self._answer(request, silence=self._settings.answer_timeout) as response:
            with _failures_of(response):
                return await response.read()

    @contextlib.asynccontextmanager
    async def stream(
        self, path: str, query: Mapping[str, str], *, lifetime: float
    ) -> AsyncIterator[AsyncIterator[list[bytes]]]:
        """A watch that has been accepted: whole lines as they come, until the server ends it.

        ``lifetime`` is the time after which the server was asked to end it.
        """
        request = Request("GET", path, query)
        async with self._answer(request, silence=lifetime + _GRACE) as response:
            yield self._lines(response)

    async def _lines(self, response: aiohttp.ClientResponse) -> AsyncIterator[list[bytes]]:
        lines = Lines()
        limit = self._settings.line_bytes
        while True:
            with _failures_of(response):
                chunk = await response.content.readany()
            if not chunk:
                return
            found = lines.feed(chunk)
            if lines.pending > limit:
                raise Unreachable(f"the API server's watch sent an event larger than {limit} bytes")
            if found:
                yield found

    @contextlib.asynccontextmanager
    async def _answer(
        self, request: Request, *, silence: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer below 300. Credentials that are refused are replaced, once."""
        access = await self._credentials.current()
        response = await self._ask(access, request, silence)
        if response.status == 401:
            response.release()
            await self._credentials.refused(access)
            access = await self._credentials.current()
            response = await self._ask(access, request, silence)
        try:
            if response.status >= 300:
                retry = _seconds(response.headers.get("Retry-After", ""))
                with _failures_of(response):
                    body = await response.read()
                raise failure(response.status, body, retry_after=retry)
            yield response
        finally:
            response.close()

    async def _ask(
        self, access: Access, request: Request, silence: float
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            raise RuntimeError("an Api is used as `async with Api(...) as api`")
        headers = dict(access.headers)
        if request.body is not None:
            headers["Content-Type"] = request.content
        with _failures_of(access):
            return await self._session.request(
                request.method,
                access.server + request.path,
                params=request.query,
                data=request.body,
                headers=headers,
                ssl=access.tls or True,
                server_hostname=access.server_name,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=self._settings.connect_timeout, sock_read=silence
                ),
            )


@contextlib.contextmanager
def _failures_of(asked: Access | aiohttp.ClientResponse) -> Iterator[None]:
    """Every way in which a server does not answer, in one word."""
    server = asked.server if isinstance(asked, Access) else str(asked.url.origin())
    try:
        yield
    except aiohttp.ClientConnectorCertificateError as error:
        raise Unreachable(f"the certificate of {server} is not accepted: {_why(error)}") from None
    except TimeoutError:
        raise Unreachable(f"the API server at {server} is silent") from None
    except (aiohttp.ClientError, OSError) as error:
        raise Unreachable(f"the API server at {server} does not answer: {_why(error)}") from None


def _why(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return str(error.certificate_error)
        case aiohttp.ClientConnectorError():
            return error.strerror or "connection failed"
        case ssl.SSLError():
            return error.reason or "TLS failed"
        case aiohttp.ClientPayloadError() | aiohttp.ServerDisconnectedError():
            return "connection closed in the middle of an answer"
        case OSError():
            return error.strerror or "connection failed"
        case _:
            return " ".join(str(error).split())[:200] or type(error).__name__


def _seconds(header: str) -> float:
    return float(header) if header.isascii() and header.isdecimal() else 0.0


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket that notices within a minute or so that the other host has vanished."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.settimeout(0.0)
    for level, option, value in (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    ):
        made.setsockopt(level, option, value)
    return made
