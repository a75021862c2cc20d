"""How the test API server puts its answers on the wire, and how a fault cuts them short."""

import asyncio
import json

from aiohttp import web

from tests.support.kube.catalog import Kind
from tests.support.kube.faults import Fault
from tests.support.kube.refusals import Refused
from tests.support.kube.store import Manifest


def status_body(refused: Refused) -> Manifest:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": str(refused),
        "reason": refused.reason,
        "code": refused.code,
        **({"details": refused.details} if refused.details else {}),
    }


def done(kind: Kind, gone: Manifest) -> Manifest:
    """What a deletion is answered with."""
    about = {"name": gone["metadata"]["name"], "group": kind.group, "kind": kind.plural}
    details = {key: value for key, value in about.items() if value}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {**details, "uid": gone["metadata"].get("uid", "")},
    }


def status(refused: Refused, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response(status_body(refused), status=refused.code, headers=headers)


async def open_(
    request: web.Request, fault: Fault | None, *, length: int | None = None
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    if length is not None:
        response.content_length = length
    else:
        response.enable_chunked_encoding()
    await response.prepare(request)
    return response


async def event(
    request: web.Request,
    response: web.StreamResponse,
    fault: Fault | None,
    type_: str,
    body: Manifest,
) -> None:
    line = json.dumps({"type": type_, "object": body}, separators=(",", ":")).encode() + b"\n"
    await send(request, response, line, fault)


async def send(
    request: web.Request, response: web.StreamResponse, data: bytes, fault: Fault | None
) -> None:
    """Write, or as much of it as a fault lets through before the connection goes down."""
    if fault is None or fault.cut_after > len(data):
        await response.write(data)
        if fault is not None:
            fault.cut_after -= len(data)
        return
    await response.write(data[: fault.cut_after])
    await asyncio.sleep(0.05)  # what was written must be on the wire before the reset
    if request.transport is not None:
        request.transport.abort()
    raise ConnectionResetError
