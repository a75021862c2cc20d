"""An etcd by hand: what real ones do rarely, or in versions that are not here."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from kvstore import wire
from kvstore._grpc import grpc
from kvstore._proto import etcd_pb2 as rpc
from kvstore.client import Denied, OtherPast, Refused, StoreError, Unavailable
from kvstore.config import EtcdConfig
from kvstore.etcd import open_etcd
from tests.support.store_contract import everything

MORE_OF_3_6 = b"\x5a\x053.6.0" + b"\x60\x80\x80\x80\x80\x08" + b"\x6a\x02\x08\x00"
"""What an etcd 3.6 adds to its status: storageVersion, dbSizeQuota, downgradeInfo."""


class Etcd:
    """Answers as it is told to."""

    def __init__(self) -> None:
        self.url = ""
        self.cluster_id = 7
        self.status: grpc.StatusCode | None = None
        self.range: Callable[[], tuple[grpc.StatusCode, str]] | None = None

    def header(self) -> rpc.ResponseHeader:
        return rpc.ResponseHeader(cluster_id=self.cluster_id, revision=5)

    async def get_status(self, _: rpc.StatusRequest, context: grpc.aio.ServicerContext):
        if self.status is not None:
            await context.abort(self.status, "etcdserver: permission denied")
        reply = rpc.StatusResponse(header=self.header(), version="3.6.17")
        reply.MergeFromString(MORE_OF_3_6)
        return reply

    async def get_range(self, _: rpc.RangeRequest, context: grpc.aio.ServicerContext):
        if self.range is not None:
            await context.abort(*self.range())
        return rpc.RangeResponse(header=self.header())

    async def watch(self, requests: AsyncIterator[rpc.WatchRequest], _: object):
        async for request in requests:
            yield rpc.WatchResponse(
                header=self.header(), watch_id=request.create_request.watch_id, created=True
            )


def _handler(made: object, method: wire.Method, *, streaming: bool = False) -> object:
    make = (
        grpc.stream_stream_rpc_method_handler if streaming else grpc.unary_unary_rpc_method_handler
    )
    return make(made, method.request.FromString, method.reply.SerializeToString)


@asynccontextmanager
async def serving() -> AsyncIterator[Etcd]:
    etcd, server = Etcd(), grpc.aio.server()
    for service, methods in {
        "etcdserverpb.KV": {"Range": _handler(etcd.get_range, wire.RANGE)},
        "etcdserverpb.Maintenance": {"Status": _handler(etcd.get_status, wire.STATUS)},
        "etcdserverpb.Watch": {"Watch": _handler(etcd.watch, wire.WATCH, streaming=True)},
    }.items():
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
    etcd.url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield etcd
    finally:
        await server.stop(0)


def config(etcd: Etcd) -> EtcdConfig:
    return EtcdConfig.of(etcd.url, reconnect_ceiling=0.2, request_timeout=2.0)


async def test_an_etcd_that_tells_its_status_to_nobody_is_known_by_its_replies() -> None:
    """So do releases of 2026: the status is for administrators."""
    async with serving() as etcd:
        etcd.status = grpc.StatusCode.PERMISSION_DENIED
        async with open_etcd(config(etcd)) as store:
            assert await store.get("a") is None
            assert store.cluster_id == 7
            assert store.connections == 1


async def test_a_release_that_tells_more_of_itself_is_understood() -> None:
    async with serving() as etcd, open_etcd(config(etcd)) as store:
        await store.connected(beyond=0)
        assert "version 3.6.17, ID: 0000000000000007" in store.status_text()


async def test_a_reply_of_another_etcd_ends_the_connection() -> None:
    async with serving() as etcd, open_etcd(config(etcd)) as store:
        await everything(store, "a/")
        etcd.cluster_id = 8
        with pytest.raises(OtherPast, match="etcd 8 answered instead of 7"):
            await store.get("a")
        await store.connected(beyond=1)
        assert await store.get("a") is None
        assert store.cluster_id == 8


async def test_a_reply_without_a_header_is_of_nobody() -> None:
    async with serving() as etcd, open_etcd(config(etcd)) as store:
        await store.connected(beyond=0)
        etcd.cluster_id = 0
        with pytest.raises(OtherPast):
            await store.get("a")


@pytest.mark.parametrize(
    ("code", "details", "word"),
    [
        (grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader", Unavailable),
        (grpc.StatusCode.PERMISSION_DENIED, "etcdserver: permission denied", Denied),
        (grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: request is too large", Refused),
        (grpc.StatusCode.INTERNAL, "something new", Unavailable),
    ],
)
async def test_a_failure_arrives_as_its_word(
    code: grpc.StatusCode, details: str, word: type[StoreError]
) -> None:
    async with serving() as etcd, open_etcd(config(etcd)) as store:
        await store.connected(beyond=0)
        etcd.range = lambda: (code, details)
        with pytest.raises(word, match=details):
            await store.get("a")
