"""What a process says over HTTP: /livez, /readyz, /metrics, /v1/status, /v1/loglevel and its own.

    surface = Surface(
        title="clustermesh-agent", board=board, log=control, status=agent.status,
        registry=REGISTRY, reads={"/v1/services": lambda query: dataplane.services()},
    )
    with listening(socket=settings.api_socket, listen=settings.api_listen) as sockets:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(serve(surface, sockets), name="http")

- ``listening(*, socket: Path | None, listen: str) -> context of list[socket.socket]`` binds, so
  that a taken address is a ``Fault`` before anything else starts. ``listen`` is ``host:port``, or
  several of them, or empty; ``:port`` is every address of the host. The unix socket is
  readable by its owner only and is removed at the end.
  FastAPI is imported before, so that neither what runs nor who asks is held up by its 0.25 s.
- ``serve(surface, sockets)`` answers until it is cancelled, then closes within a second.
- ``reads`` map a path to a function of the query (name -> last value) that gives a value msgspec
  can encode. It raises ``Refused(status, sentence)`` to refuse. Functions run in the event loop:
  they must be quick. An ``async`` one is awaited. An asynchronous iterator of bytes is streamed, as
  newline-delimited JSON. Paths may have parameters (``/v1/x/{name}``).
- ``actions`` are the same for POST; the JSON body's members join the query. What changes something
  is answered on the unix socket only: TCP has no login.
- ``build_app(surface) -> FastAPI`` for tests.

/livez answers 200 ``ok`` while the event loop runs; /readyz 200 ``Ready`` or 500 ``NotReady``
(contract kvstore 8); PUT /v1/loglevel takes ``{"level": "debug"}``.
"""

import asyncio
import inspect
import os
import socket as sockets_
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from clustermesh.health import Board
from clustermesh.logs import Control
from clustermesh.process import Fault
from clustermesh.version import VERSION

if TYPE_CHECKING:
    from fastapi import FastAPI, Request, Response
    from prometheus_client import CollectorRegistry

Query = Mapping[str, str]
Answer = Callable[[Query], object | Awaitable[object]]
BODY_LIMIT: Final = 1 << 20  # bytes of a request's body


class Refused(Exception):
    """A request is refused with this status and sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Surface(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a process shows."""

    title: str
    board: Board
    log: Control
    status: Callable[[], object]
    registry: "CollectorRegistry"
    reads: Mapping[str, Answer] = {}
    actions: Mapping[str, Answer] = {}


@contextmanager
def listening(
    *, socket: Path | None, listen: str | Sequence[str] = ""
) -> Iterator[list[sockets_.socket]]:
    """Bound, listening sockets; see the module's text."""
    made: list[sockets_.socket] = []
    addresses = list(filter(None, [listen] if isinstance(listen, str) else listen))
    if socket is not None or addresses:
        _import_server()
    try:
        if socket is not None:
            made.append(_unix(socket))
        made += (_tcp(address) for address in dict.fromkeys(addresses))
        yield made
    finally:
        for each in made:
            each.close()
        if socket is not None and made:
            socket.unlink(missing_ok=True)


def _unix(path: Path) -> sockets_.socket:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Fault(f"cannot listen on {path}: {error.strerror}: {error.filename}") from None
    with sockets_.socket(sockets_.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            path.unlink(missing_ok=True)
        except OSError as error:
            raise Fault(f"cannot listen on {path}: {error.strerror or error}") from None
        else:
            raise Fault(f"another process answers on {path}; stop it or choose another socket")
    made = sockets_.socket(sockets_.AF_UNIX)
    before = os.umask(0o177)
    try:
        made.bind(str(path))
        made.listen(128)
    except OSError as error:
        made.close()
        raise Fault(f"cannot listen on {path}: {error.strerror or error}") from None
    finally:
        os.umask(before)
    return made


def _tcp(listen: str) -> sockets_.socket:
    host, _, port = listen.rpartition(":")
    if ":" not in listen or not port.isdecimal() or int(port) > 65535:
        raise Fault(f"cannot listen on {listen!r}: expected host:port, such as 0.0.0.0:9880")
    host = host.removeprefix("[").removesuffix("]")
    try:
        if not host and sockets_.has_dualstack_ipv6():
            return sockets_.create_server(
                ("", int(port)), family=sockets_.AF_INET6, dualstack_ipv6=True
            )
        family = sockets_.AF_INET6 if ":" in host else sockets_.AF_INET
        return sockets_.create_server((host, int(port)), family=family)
    except OSError as error:
        raise Fault(f"cannot listen on {listen}: {error.strerror or error}") from None


async def serve(surface: Surface, sockets: list[sockets_.socket]) -> None:
    """Answer on ``sockets`` until cancelled."""
    if not sockets:
        return
    import uvicorn

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # signals belong to clustermesh.process

        async def main_loop(self) -> None:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()  # and no ticking ten times a second

    server = Server(
        uvicorn.Config(
            build_app(surface),
            lifespan="off",
            log_config=None,
            access_log=False,
            ws="none",
            loop="asyncio",
            date_header=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
    )
    await server.serve(sockets)
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _import_server() -> None:
    import fastapi
    import uvicorn.protocols.http.h11_impl  # which uvicorn would import when it begins to serve

    _ = fastapi, uvicorn


def build_app(surface: Surface) -> "FastAPI":
    """The application; imports FastAPI."""
    from fastapi import FastAPI
    from fastapi.responses import PlainTextResponse

    app = FastAPI(title=surface.title, version=VERSION, docs_url=None, redoc_url=None)

    async def livez() -> PlainTextResponse:
        return PlainTextResponse("ok")

    async def readyz() -> PlainTextResponse:
        ready = surface.board.ready
        return PlainTextResponse("Ready" if ready else "NotReady", 200 if ready else 500)

    async def metrics() -> PlainTextResponse:
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return PlainTextResponse(generate_latest(surface.registry), media_type=CONTENT_TYPE_LATEST)

    def loglevel(query: Query) -> object:
        try:
            surface.log.set_level(query.get("level", ""))
        except ValueError as error:
            raise Refused(400, str(error)) from None
        return {"level": surface.log.level}

    app.get("/livez", response_class=PlainTextResponse)(livez)
    app.get("/readyz", response_class=PlainTextResponse)(readyz)
    app.get("/metrics", response_class=PlainTextResponse)(metrics)
    reads = {
        "/v1/status": lambda _: surface.status(),
        "/v1/loglevel": lambda _: {"level": surface.log.level},
        **surface.reads,
    }
    for path, answer in reads.items():
        app.add_api_route(path, _endpoint(answer), methods=["GET"])
    for path, answer in surface.actions.items():
        app.add_api_route(path, _endpoint(answer), methods=["POST"])
    app.add_api_route("/v1/loglevel", _endpoint(loglevel), methods=["PUT"])
    return app


def _endpoint(answer: Answer) -> "Callable[[Request], Awaitable[Response]]":
    """A route that encodes with msgspec, at a tenth of what FastAPI's own encoding costs."""
    from fastapi import Request, Response
    from fastapi.responses import StreamingResponse

    async def endpoint(request: Request) -> Response:
        try:
            _allow(request)
            query = {**request.path_params, **request.query_params, **await _body(request)}
            value = answer(query)
            if inspect.isawaitable(value):
                value = await value
            if isinstance(value, AsyncIterator):
                return StreamingResponse(value, media_type="application/x-ndjson")
            status = 200
        except Refused as refused:
            value, status = {"error": str(refused)}, refused.status
        return Response(msgspec.json.encode(value), status, media_type="application/json")

    return endpoint


def _allow(request: "Request") -> None:
    if request.method != "GET" and request.client is not None:  # None: the unix socket
        raise Refused(403, "what changes something is answered on the unix socket only")


async def _body(request: "Request") -> dict[str, str]:
    """The members of a JSON body, as text."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > BODY_LIMIT:
            raise Refused(413, f"body: expected at most {BODY_LIMIT} bytes")
    if not data:
        return {}
    try:
        return msgspec.json.decode(data, type=dict[str, str])
    except msgspec.ValidationError as error:
        raise Refused(400, f"body: {error}") from None
    except msgspec.DecodeError:
        raise Refused(400, "body: expected a JSON object") from None
