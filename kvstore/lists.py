"""Reading all under a prefix: pages of one revision, sized by bytes, the next one already under
way.
"""

from collections.abc import AsyncGenerator, Sequence
from operator import attrgetter

from kvstore._proto import etcd_pb2 as rpc
from kvstore.client import Entry, Page, Refused
from kvstore.config import EtcdConfig
from kvstore.pace import Pace
from kvstore.wire import RANGE, Link, Pending

_Request = Pending[rpc.RangeRequest, rpc.RangeResponse]


def after_prefix(prefix: bytes) -> bytes:
    """Where a range ends that holds exactly the keys with this prefix; NUL is etcd's word for "no
    end".
    """
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes((kept[-1] + 1,)) if kept else b"\0"


def to_bytes(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


def to_text(key: bytes) -> str:
    return key.decode("utf-8", "surrogateescape")


def entry(kv: rpc.KeyValue) -> Entry:
    return Entry(kv.key.decode("utf-8", "surrogateescape"), kv.value, kv.mod_revision, kv.lease)


_fields = attrgetter("key", "value", "mod_revision", "lease")


def _entries(kvs: Sequence[rpc.KeyValue]) -> list[Entry]:
    """``entry`` of each, without a call for each of what may be a million."""
    try:
        return [
            Entry(key.decode(), value, revision, lease)
            for key, value, revision, lease in map(_fields, kvs)
        ]
    except UnicodeDecodeError:
        return [entry(kv) for kv in kvs]


class Listing:
    """One listing on one connection; if that breaks, the whole listing is void."""

    def __init__(self, link: Link, prefix: str, config: EtcdConfig) -> None:
        self._link = link
        self._config = config
        self._start = to_bytes(prefix) or b"\0"
        self._end = after_prefix(to_bytes(prefix))
        self._most = config.page_keys
        self._limit = min(config.first_page_keys, config.page_keys)
        self._revision = 0
        self._pace = Pace()

    async def pages(self) -> AsyncGenerator[Page, None]:
        """Slices of the pages as they arrive. No sort order is asked for: ranges come in key order,
        and asking makes the server read all of the range for each page.
        """
        request: _Request | None = self._ask(self._start)
        try:
            while request is not None:
                reply = await self._await(request)
                self._revision = self._revision or reply.header.revision
                request = self._ask(reply.kvs[-1].key + b"\0") if reply.more and reply.kvs else None
                async for page in self._slices(reply):
                    yield page
        finally:
            if request is not None:
                request.cancel()

    def _ask(self, key: bytes) -> _Request:
        self._start = key
        return self._link.begin(
            RANGE,
            rpc.RangeRequest(
                key=key, range_end=self._end, limit=self._limit, revision=self._revision
            ),
        )

    async def _await(self, request: _Request) -> rpc.RangeResponse:
        """The reply; a page that is too large to receive is asked for again by half."""
        while True:
            try:
                reply = await request
            except Refused:
                if self._limit <= 1:
                    raise
                self._most = self._limit = max(1, self._limit // 2)
                request = self._ask(self._start)
            else:
                self._adapt(reply)
                return reply

    def _adapt(self, reply: rpc.RangeResponse) -> None:
        """Size the next page by some of this one: asking a message for its size encodes it."""
        some = reply.kvs[:: max(1, len(reply.kvs) // 100)]
        if some:
            size = sum(len(kv.key) + len(kv.value) + 40 for kv in some) // len(some)
            self._limit = max(1, min(self._most, self._config.page_bytes // size))

    async def _slices(self, reply: rpc.RangeResponse) -> AsyncGenerator[Page, None]:
        kvs, step = reply.kvs, self._config.slice_keys
        for at in range(0, max(1, len(kvs)), step):
            began = self._pace.begin()
            yield Page(_entries(kvs[at : at + step]), self._revision)
            await self._pace.ended(began)  # whatever its reader did with it counts too
