"""Talk HTTP to an agent or apiserver: over its unix socket (``unix:/path``), TCP, or an API server.

``kube:`` URLs are made by ``kube.pods``.
"""

import http.client
import socket
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from clustermesh.errors import NoAnswer as NoAnswer  # noqa: PLC0414  # what everything here raises

T = TypeVar("T")

TIMEOUT = 5.0


class Refusal(NoAnswer):
    """It answers, and does not do it (403); ``reason`` is the sentence that it gives."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(text)
        self.reason = reason


AT_ONCE = 16
"""How many are asked at the same time."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def fetch(url: str, path: str, kind: type[T], *, timeout: float = TIMEOUT) -> T:
    """GET a path and decode its JSON; raises ``NoAnswer``."""
    return _decoded(url, path, kind, get(url, path, timeout=timeout))


def fetch_all(
    urls: Mapping[str, str], path: str, kind: type[T], *, timeout: float = TIMEOUT
) -> tuple[dict[str, T], dict[str, str]]:
    """The same of many, several at a time: what each answers, by name, and why others do not.

    Those who do not answer cost the time of one; a program in a pod takes a while to start.
    """
    found: dict[str, T] = {}
    silent: dict[str, str] = {}

    def one(url: str) -> T | NoAnswer:
        try:
            return fetch(url, path, kind, timeout=timeout)
        except NoAnswer as error:
            return error

    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        for name, told in zip(urls, pool.map(one, urls.values()), strict=True):
            if isinstance(told, NoAnswer):
                silent[name] = str(told)
            else:
                found[name] = told
    return found, silent


def post(url: str, path: str, kind: type[T], *, timeout: float = TIMEOUT) -> T:
    """POST to a path and decode the answer's JSON; raises ``NoAnswer``."""
    return _decoded(url, path, kind, get(url, path, timeout=timeout, method="POST"))


def _decoded(url: str, path: str, kind: type[T], answer: tuple[int, bytes]) -> T:
    code, body = answer
    if code != http.client.OK:
        text = f"{spoken(url)}{path} answers {code}{_reason(body)}"
        if code == http.client.FORBIDDEN and (reason := _reason(body)):
            raise Refusal(text, reason.removeprefix(": "))
        raise NoAnswer(text)
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise NoAnswer(
            f"{spoken(url)}{path} gives what this release does not understand: {error}"
        ) from error


def _reason(body: bytes) -> str:
    """What a refusal says, after a colon; an API server in between says it its own way."""
    try:
        found = msgspec.json.decode(body, type=dict[str, object])
    except msgspec.MsgspecError:
        return ""
    said = found.get("error") or found.get("message")
    return f": {said}" if said else ""


def get(url: str, path: str, *, timeout: float = TIMEOUT, method: str = "GET") -> tuple[int, bytes]:
    """GET a path: HTTP status and body; raises ``NoAnswer``."""
    with _asking(url, timeout) as connection:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()


def lines(
    url: str, path: str, *, timeout: float, body: Mapping[str, str] | None = None
) -> Generator[bytes, None, None]:
    """A path whose answer goes on and on: its lines, as they come; raises ``NoAnswer``. With a
    body it is a POST.

    ``timeout`` is the longest silence in seconds, an empty line is none.
    """
    with _asking(url, timeout) as connection:
        data = None if body is None else msgspec.json.encode(body)
        connection.request("GET" if body is None else "POST", path, data)
        response = connection.getresponse()
        if response.status != http.client.OK:
            reason = _reason(response.read())
            raise NoAnswer(f"{spoken(url)}{path} answers {response.status}{reason}")
        while line := response.readline():
            yield line
        raise NoAnswer(f"{spoken(url)} has ended its answer")


def ask(
    url: str, path: str, body: Mapping[str, str], kind: type[T], *, timeout: float = TIMEOUT
) -> T:
    """POST a question that changes nothing, but is not for everybody; raises ``NoAnswer``."""
    with _asking(url, timeout) as connection:
        connection.request("POST", path, msgspec.json.encode(body))
        response = connection.getresponse()
        answer = response.status, response.read()
    return _decoded(url, path, kind, answer)


@contextmanager
def _asking(url: str, timeout: float) -> Iterator[http.client.HTTPConnection]:
    """A connection for one question; what goes wrong with it is a ``NoAnswer``."""
    connection = _connection(url, timeout)
    try:
        yield connection
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise NoAnswer(f"{spoken(url)} does not answer ({reason})") from error
    finally:
        connection.close()


def spoken(url: str) -> str:
    """It for an operator."""
    if not url.startswith("kube:"):
        return url
    from clustermesh.meshctl.kube import pods

    return pods.spoken(url)


def ready(url: str, *, timeout: float = TIMEOUT) -> bool:
    """Whether the process behind the URL says that it is ready."""
    try:
        return get(url, "/readyz", timeout=timeout)[0] == http.client.OK
    except NoAnswer:
        return False


def _connection(url: str, timeout: float) -> http.client.HTTPConnection:
    if url.startswith("unix:"):
        return _UnixConnection(url.removeprefix("unix:"), timeout)
    if url.startswith("kube:"):
        from clustermesh.meshctl.kube import pods

        return pods.reach(url, timeout)
    with suppress(ValueError):  # brackets that do not match, a port that is no number
        parts = urlsplit(url)
        if parts.scheme == "http" and parts.hostname:
            return http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
    raise NoAnswer(f"{url!r} is neither unix:/PATH nor http://HOST:PORT")
