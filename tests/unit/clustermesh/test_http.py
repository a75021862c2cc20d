"""A process answers over HTTP on a unix socket and on TCP, and stops at once."""

import asyncio
import json
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry, Gauge

from clustermesh import http
from clustermesh.health import Board
from clustermesh.logs import Control
from clustermesh.process import Fault


class Status(msgspec.Struct, rename="kebab"):
    num_services: int = 3


STREAM_ENDED = {"left": asyncio.Event(), "kept": asyncio.Event()}


async def stream(name: str) -> AsyncIterator[bytes]:
    try:
        for number in range(1_000_000):
            yield b"%d\n" % number
            await asyncio.sleep(0.01)
    finally:
        STREAM_ENDED[name].set()


def surface(board: Board) -> http.Surface:
    registry = CollectorRegistry()
    Gauge("example_things", "Things.", registry=registry).set(3)

    async def refuse(query: http.Query) -> object:
        raise http.Refused(404, f"no service {query['name']}")

    return http.Surface(
        title="example",
        board=board,
        log=Control("info"),
        status=Status,
        registry=registry,
        reads={
            "/v1/echo/{name}": dict,
            "/v1/none/{name}": refuse,
            "/v1/stream/{name}": lambda query: stream(query["name"]),
        },
        actions={"/v1/echo": dict},
    )


@asynccontextmanager
async def answering(path: Path, board: Board, listen: str = "") -> AsyncIterator[int]:
    """Answers meanwhile; gives the TCP port."""
    with http.listening(socket=path, listen=listen) as sockets:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(http.serve(surface(board), sockets))
            try:
                yield sockets[1].getsockname()[1] if listen else 0
            finally:
                task.cancel()


async def ask(path: Path, request: str, body: str = "") -> tuple[int, str]:
    return await talk(*await asyncio.open_unix_connection(path), request, body)


async def talk(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: str, body: str = ""
) -> tuple[int, str]:
    head = f"{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
    writer.write(f"{head}\r\n{body}".encode())
    answer = (await reader.read()).decode()
    writer.close()
    head, _, content = answer.partition("\r\n\r\n")
    return int(head.split()[1]), content


async def test_probes_metrics_and_status(tmp_path: Path) -> None:
    path, board = tmp_path / "api.sock", Board()
    board.require("etcd")
    async with answering(path, board):
        assert await ask(path, "GET /livez") == (200, "ok")
        assert await ask(path, "GET /readyz") == (500, "NotReady")
        board.ok("etcd")
        assert await ask(path, "GET /readyz") == (200, "Ready")
        status, text = await ask(path, "GET /metrics")
        assert status == 200
        assert "example_things 3.0" in text
        assert await ask(path, "GET /v1/status") == (200, '{"num-services":3}')


async def test_the_level_of_the_log(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    async with answering(path, Board()):
        assert await ask(path, "GET /v1/loglevel") == (200, '{"level":"info"}')
        changed = await ask(path, "PUT /v1/loglevel", '{"level":"debug"}')
        assert changed == (200, '{"level":"debug"}')
        status, text = await ask(path, "PUT /v1/loglevel", '{"level":"loud"}')
        assert status == 400
        assert "expected one of debug" in text
        assert await ask(path, "GET /v1/loglevel") == (200, '{"level":"debug"}')


async def test_reads_and_actions_take_path_query_and_body(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    async with answering(path, Board()):
        status, text = await ask(path, "GET /v1/echo/web?cluster=paris")
        assert (status, json.loads(text)) == (200, {"name": "web", "cluster": "paris"})
        assert await ask(path, "GET /v1/none/web") == (404, '{"error":"no service web"}')
        assert await ask(path, "POST /v1/echo", '{"a":"b"}') == (200, '{"a":"b"}')
        assert (await ask(path, "POST /v1/echo", "x"))[0] == 400
        assert (await ask(path, "POST /v1/echo", '{"a":1}'))[0] == 400
        assert (await ask(path, "POST /v1/echo", "x" * (http.BODY_LIMIT + 1)))[0] == 413


async def test_tcp_answers_and_changes_nothing(tmp_path: Path) -> None:
    async with answering(tmp_path / "api.sock", Board(), "127.0.0.1:0") as port:

        async def over_tcp(request: str, body: str = "") -> tuple[int, str]:
            return await talk(*await asyncio.open_connection("127.0.0.1", port), request, body)

        assert await over_tcp("GET /v1/status") == (200, '{"num-services":3}')
        for request in ("PUT /v1/loglevel", "POST /v1/echo"):
            status, text = await over_tcp(request, '{"level":"debug"}')
            assert status == 403
            assert "on the unix socket only" in text
        assert await over_tcp("GET /v1/loglevel") == (200, '{"level":"info"}')


async def test_a_stream_comes_line_by_line_and_ends_with_its_reader_or_the_process(
    tmp_path: Path,
) -> None:
    path = tmp_path / "s"
    async with answering(path, Board()):
        for name in ("left", "kept"):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(f"GET /v1/stream/{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"application/x-ndjson" in head
            await reader.readuntil(b"3\n")
            if name == "left":
                writer.close()
                await STREAM_ENDED["left"].wait()
        assert not STREAM_ENDED["kept"].is_set()
    assert STREAM_ENDED["kept"].is_set()
    writer.close()


async def test_an_open_connection_does_not_hold_up_the_end(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    async with answering(path, Board()):
        await ask(path, "GET /livez")
        _, writer = await asyncio.open_unix_connection(path)
    writer.close()
    assert not path.exists()


async def test_nobody_asks_and_it_ends(tmp_path: Path) -> None:
    async with answering(tmp_path / "api.sock", Board()):
        await asyncio.sleep(0)


def test_the_socket_is_its_owners_only(tmp_path: Path) -> None:
    path = tmp_path / "run" / "api.sock"
    with http.listening(socket=path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with (
            pytest.raises(Fault, match="another process answers on"),
            http.listening(socket=path),
        ):
            pass
        assert path.exists()
    assert not path.exists()


def test_a_socket_that_a_dead_process_left_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with http.listening(socket=path) as (mine,):
        assert mine.getsockname() == str(path)


@pytest.mark.parametrize(
    ("listen", "sentence"),
    [
        ("9880", "expected host:port"),
        ("127.0.0.1:http", "expected host:port"),
        ("127.0.0.1:70000", "expected host:port"),
        ("192.0.2.1:9880", "cannot listen on 192.0.2.1:9880"),
    ],
)
def test_an_address_that_cannot_be_had_is_a_sentence(listen: str, sentence: str) -> None:
    with pytest.raises(Fault, match=sentence), http.listening(socket=None, listen=listen):
        pass


def test_a_path_too_long_for_a_socket_is_a_sentence(tmp_path: Path) -> None:
    with (
        pytest.raises(Fault, match="cannot listen on"),
        http.listening(socket=tmp_path / ("x" * 200)),
    ):
        pass
