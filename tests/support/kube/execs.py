"""What a kubelet does for ``pods/exec``: the streams of a program as WebSocket messages."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

PROTOCOLS = ("v4.channel.k8s.io",)
STDIN, STDOUT, STDERR, ENDED = range(4)
CLOSED = 255
"""v5: the stream that the second byte names has ended."""
PIECE = 1 << 16
ROOT = Path(__file__).parents[3]

Argv = Sequence[str]
Program = Callable[[Argv], Argv]
"""The command line on this machine that stands for one in a container."""


def upgrades(request: web.Request) -> bool:
    return request.headers.get("Upgrade", "").lower() == "websocket"


def relaying(folder: Path) -> Program:
    """What stands for a container whose processes' sockets are in a folder."""

    def program(command: Argv) -> Argv:
        name, path = command
        if name == "clustermesh-maps":
            return ("echo", '{"errno":2,"error":"No such file or directory"}')
        assert name == "clustermesh-relay"
        python = ("env", f"PYTHONPATH={ROOT}", sys.executable, "-S", "-P")
        return (*python, "-m", "clustermesh.relay", str(folder / Path(path).name))

    return program


async def serve(
    request: web.Request, program: Program, protocols: Sequence[str] = PROTOCOLS
) -> web.WebSocketResponse:
    """Run what the query's ``command`` says, until it ends or who asked has gone."""
    streams = web.WebSocketResponse(protocols=protocols)
    await streams.prepare(request)
    await streams.send_bytes(bytes([STDOUT]))  # a kubelet's way to say that it begins
    command = request.query.getall("command", [])
    try:
        process = await asyncio.create_subprocess_exec(
            *program(command), stdin=PIPE, stdout=PIPE, stderr=PIPE
        )
    except (FileNotFoundError, PermissionError):
        await _end(streams, _not_started(command))
        return streams
    try:
        await _carry(streams, process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    await _end(streams, _verdict(process.returncode or 0))
    return streams


async def refuse(request: web.Request, why: str, protocols: Sequence[str]) -> web.WebSocketResponse:
    """As an API server does that has taken the streams before it asks the kubelet (v5)."""
    streams = web.WebSocketResponse(protocols=protocols)
    await streams.prepare(request)
    await _end(streams, {"metadata": {}, "status": "Failure", "message": why, "code": 500})
    return streams


async def _carry(streams: web.WebSocketResponse, process: Process) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    told = [
        asyncio.create_task(_tell(streams, STDOUT, process.stdout)),
        asyncio.create_task(_tell(streams, STDERR, process.stderr)),
    ]
    asked = asyncio.create_task(_hear(streams, process.stdin))
    try:
        await asyncio.gather(*told)
        await process.wait()
    finally:
        for task in (asked, *told):
            task.cancel()


async def _tell(streams: web.WebSocketResponse, stream: int, reader: asyncio.StreamReader) -> None:
    while piece := await reader.read(PIECE):
        await streams.send_bytes(bytes([stream]) + piece)


async def _hear(streams: web.WebSocketResponse, stdin: asyncio.StreamWriter) -> None:
    async for message in streams:
        if message.type is WSMsgType.BINARY and message.data[0] == STDIN:
            stdin.write(message.data[1:])
            await stdin.drain()
        elif message.type is WSMsgType.BINARY and message.data[:2] == bytes([CLOSED, STDIN]):
            break
    stdin.close()


async def _end(streams: web.WebSocketResponse, verdict: dict[str, Any]) -> None:
    if not streams.closed:
        await streams.send_bytes(bytes([ENDED]) + json.dumps(verdict).encode())
        await streams.close()


def _verdict(code: int) -> dict[str, Any]:
    if not code:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def _not_started(command: Argv) -> dict[str, Any]:
    """As containerd and runc say it."""
    why = f'exec: "{command[0]}": executable file not found in $PATH: unknown'
    return {
        "metadata": {},
        "status": "Failure",
        "message": "error executing command in container: failed to exec in container: failed to"
        f' start exec "0": OCI runtime exec failed: exec failed: unable to start process: {why}',
        "reason": "InternalError",
        "details": {"causes": [{"message": why}]},
        "code": 500,
    }
