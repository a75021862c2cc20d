"""POST /v1/kvstore of an apiserver: what the cluster's etcd holds, for the operator on its host.

An etcd wants a client certificate; whoever may use the apiserver's unix socket needs none, and is
shown the trees of the mesh and nothing else. Values go as base64, one JSON object a line.
"""

from collections.abc import AsyncIterator
from typing import Final

import msgspec

from clustermesh.http import Answer, Query, Refused
from clustermesh.kept import End, Kept
from kvstore.client import Reader, StoreError
from kvstore.events import Put, shown
from kvstore.watch import ending

TREES: Final = ("cilium/", "clustermesh/")
MOST: Final = 1_000_000
"""Keys in one answer."""


def reads(store: Reader) -> dict[str, Answer]:
    """Path to answer, for ``Surface.actions``."""
    return {
        "/v1/kvstore": lambda query: _list(store, _asked(query), _limit(query)),
        "/v1/kvstore/watch": lambda query: _watch(store, _asked(query)),
    }


def _asked(query: Query) -> str:
    if unknown := sorted(query.keys() - {"prefix", "limit"}):
        raise Refused(400, f"unknown parameter {unknown[0]!r}; known are prefix and limit")
    prefix = query.get("prefix", "")
    if not prefix.startswith(TREES):
        raise Refused(400, f"prefix: expected one that begins with {' or '.join(TREES)}")
    return prefix


def _limit(query: Query) -> int:
    written = query.get("limit", str(MOST))
    if not written.isdecimal() or not 0 < int(written) <= MOST:
        raise Refused(400, f"limit: expected 1 to {MOST}, found {written!r}")
    return int(written)


async def _list(store: Reader, prefix: str, limit: int) -> AsyncIterator[bytes]:
    told = revision = 0
    try:
        async with ending(store.pages(prefix)) as pages:
            async for page in pages:
                revision = page.revision
                for entry in page.entries[: limit - told]:
                    kept = Kept(
                        key=shown(entry.key), value=entry.value, revision=int(entry.revision)
                    )
                    yield _line(kept)
                told += len(page.entries[: limit - told])
                if told >= limit:
                    break
    except StoreError as error:
        yield _line(End(revision=int(revision), error=str(error)))
        return
    yield _line(End(revision=int(revision), cut=told >= limit))


async def _watch(store: Reader, prefix: str) -> AsyncIterator[bytes]:
    """Changes from now on; an empty line when the watch stands."""
    revision = 0
    try:
        async with ending(store.pages(prefix)) as pages:
            async for page in pages:
                revision = page.revision
        async with ending(store.changes(prefix, after=revision)) as batches:
            async for batch in batches:
                for event in batch.events:
                    value = event.value if isinstance(event, Put) else None
                    yield _line(
                        Kept(key=shown(event.key), value=value, revision=int(event.revision))
                    )
                yield b"\n"
    except StoreError as error:
        yield _line(End(revision=int(revision), error=str(error)))


def _line(value: Kept | End) -> bytes:
    return msgspec.json.encode(value) + b"\n"
