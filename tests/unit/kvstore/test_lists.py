"""How a list is asked for: how much at once, what is under way meanwhile, at which revision."""

from collections.abc import Generator
from contextlib import aclosing

import pytest

from kvstore._proto import etcd_pb2 as rpc
from kvstore.client import Refused, Unavailable
from kvstore.config import EtcdConfig
from kvstore.lists import Listing
from tests.support.clock import virtual


class Server:
    """Keys in order, and everything that was asked for."""

    def __init__(self, count: int, size: int, most: int = 1 << 40) -> None:
        self.keys = [b"p/%05d" % at for at in range(count)]
        self.size = size
        self.most = most
        self.asked: list[rpc.RangeRequest] = []
        self.cancelled = 0
        self.failure: Exception | None = None

    def begin(self, _: object, request: rpc.RangeRequest) -> "Reply":
        self.asked.append(request)
        return Reply(self, request)

    def answer(self, request: rpc.RangeRequest) -> rpc.RangeResponse:
        if self.failure:
            raise self.failure
        found = [key for key in self.keys if request.key <= key < request.range_end]
        page = found[: request.limit]
        if len(page) * self.size > self.most:
            raise Refused("Received message larger than max")
        return rpc.RangeResponse(
            header=rpc.ResponseHeader(revision=77 + len(self.asked)),
            kvs=[rpc.KeyValue(key=key, value=bytes(self.size)) for key in page],
            more=len(found) > len(page),
        )


class Reply:
    """A reply under way."""

    def __init__(self, server: Server, request: rpc.RangeRequest) -> None:
        self._server = server
        self._request = request

    def __await__(self) -> Generator[None, None, rpc.RangeResponse]:
        return self._server.answer(self._request)
        yield

    def cancel(self) -> None:
        self._server.cancelled += 1


def listing(server: Server, **settings: object) -> Listing:
    return Listing(server, "p/", EtcdConfig.of("http://127.0.0.1:1", **settings))


@virtual
async def test_pages_are_sized_by_the_bytes_of_their_keys() -> None:
    server = Server(count=5_000, size=1_000 - 47)
    pages = listing(server, first_page_keys=100, page_keys=3_000, page_bytes=1_000_000)
    found = [entry.key async for page in pages.pages() for entry in page.entries]
    assert len(found) == 5_000
    assert [request.limit for request in server.asked] == [100, 1000, 1000, 1000, 1000, 1000]


@virtual
async def test_small_keys_come_in_large_pages() -> None:
    server = Server(count=5_000, size=1)
    pages = listing(server, first_page_keys=100, page_keys=3_000, page_bytes=1_000_000)
    assert [page async for page in pages.pages()]
    assert [request.limit for request in server.asked] == [100, 3000, 3000]


@virtual
async def test_every_page_is_of_the_first_ones_revision_and_none_is_sorted() -> None:
    server = Server(count=50, size=1)
    pages = [page async for page in listing(server, first_page_keys=10, page_keys=10).pages()]
    assert [request.revision for request in server.asked] == [0, 78, 78, 78, 78]
    assert {page.revision for page in pages} == {78}


@virtual
async def test_the_next_page_is_under_way_while_this_one_is_read() -> None:
    server = Server(count=50, size=1)
    async with aclosing(listing(server, first_page_keys=10, page_keys=10).pages()) as pages:
        await anext(pages)
        assert len(server.asked) == 2
    assert server.cancelled == 1, "nobody waits for it any more"


@virtual
async def test_a_page_that_cannot_be_received_is_halved_until_it_can() -> None:
    server = Server(count=100, size=1_000, most=30_000)
    pages = listing(server, first_page_keys=100, page_bytes=1 << 30)
    found = [entry.key async for page in pages.pages() for entry in page.entries]
    assert found == [key.decode() for key in server.keys]
    assert [request.limit for request in server.asked] == [100, 50, 25, 25, 25, 25]


@virtual
async def test_a_single_key_that_cannot_be_received_is_a_failure_not_a_loop() -> None:
    server = Server(count=3, size=1_000, most=500)
    with pytest.raises(Refused):
        assert [page async for page in listing(server).pages()]


@virtual
async def test_a_listing_that_breaks_is_void() -> None:
    server = Server(count=50, size=1)
    async with aclosing(listing(server, first_page_keys=10, page_keys=10).pages()) as pages:
        await anext(pages)
        server.failure = Unavailable("gone")
        with pytest.raises(Unavailable):
            await anext(pages)


@virtual
async def test_a_large_page_is_handed_on_in_slices() -> None:
    server = Server(count=2_000, size=1)
    pages = [page async for page in listing(server, first_page_keys=2_000, slice_keys=300).pages()]
    assert [len(page.entries) for page in pages] == [300] * 6 + [200]
