"""One question to an API server, and what it takes to ask it."""

from collections.abc import Mapping
from typing import Protocol

import msgspec

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"


class Request(msgspec.Struct, frozen=True):
    """What to ask for; ``body`` is JSON."""

    method: str
    path: str
    query: Mapping[str, str] = {}
    body: bytes | None = None
    content: str = JSON


class Sends(Protocol):
    """Requests to an API server; each raises an ``ApiFailure``."""

    async def send(self, request: Request) -> bytes:
        """The body of an answer."""
        ...
