"""Faults inside an API server, which only the test server can be asked for."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from clustermesh.sources.kubernetes.settings import KubernetesSettings
from clustermesh.sources.objects import ObjectKind as Kind
from clustermesh.sources.objects import Ref
from tests.support.kube import manifests as make
from tests.support.kube.admin import Admin
from tests.support.kube.fake import FakeKube
from tests.support.kube.faults import Fault
from tests.support.kube.follow import QUICK, following
from tests.support.kube.kubeserver import ADMIN_TOKEN, Kube
from tests.support.kube.server import TestApi
from tests.support.kube.sink import RecordingSink, eventually

LISTING = msgspec.structs.replace(QUICK, watch_list=False, page_limit=2)


@dataclass
class World(Kube):
    """With the test server's insides."""

    api: TestApi

    async def services(self, *names: str) -> None:
        await self.admin.apply(*(make.service(name) for name in names))

    def asked(self, *words: str) -> list[str]:
        """Requests that contain every word."""
        return [each for each in self.api.requests if all(word in each for word in words)]


@contextlib.asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    server = FakeKube(folder)
    await server.start()
    try:
        async with Admin(server.url, server.authority.pem, ADMIN_TOKEN) as admin:
            yield World(server, admin, folder, server.api)
    finally:
        await server.stop()


def services(sink: RecordingSink) -> set[str]:
    return sink.names(Kind.SERVICE)


async def test_errors_are_waited_out_for_as_long_as_the_server_says(tmp_path: Path) -> None:
    async with world(tmp_path) as kube:
        await kube.services("front")
        kube.api.faults.add(Fault("/services?", status=429, retry_after=1))
        kube.api.faults.add(Fault("/endpointslices?", status=500, times=3))
        async with following(kube.kubeconfig(), LISTING) as sink:
            await sink.until(lambda: sink.complete)
            assert services(sink) == {"front"}
            assert kube.api.faults.struck == 4
            waits = [said for said in sink.sentences if "cannot read services" in said]
            assert len(waits) == 1
            assert "the API server answers 429 (InternalError): a fault of the test" in waits[0]
            assert waits[0].endswith("; trying again in 1.0 s")


async def test_a_server_that_is_starting_is_waited_for(tmp_path: Path) -> None:
    async with world(tmp_path) as kube:
        await kube.services("front")
        kube.api.options.accepts = False
        async with following(kube.kubeconfig()) as sink:
            await sink.until(lambda: None in sink.troubles)
            assert "cannot find out what the cluster runs" in sink.troubles[None]
            kube.api.options.accepts = True
            await sink.until(lambda: sink.complete and not sink.troubles)


async def test_a_page_cut_in_the_middle_is_asked_for_again(tmp_path: Path) -> None:
    async with world(tmp_path) as kube:
        await kube.services("a", "b", "c", "d", "e")
        kube.api.faults.add(Fault("/services?limit=2&continue", cut_after=100))
        async with following(kube.kubeconfig(), LISTING) as sink:
            await sink.until(lambda: sink.complete)
            assert services(sink) == {"a", "b", "c", "d", "e"}
            assert kube.api.faults.struck == 1


async def test_a_watch_cut_in_the_middle_of_an_event_goes_on_where_it_was(tmp_path: Path) -> None:
    async with world(tmp_path) as kube:
        await kube.services("front")
        kube.api.faults.add(Fault("/services?watch=true", cut_after=120))
        async with following(kube.kubeconfig(), LISTING) as sink:
            await sink.until(lambda: sink.complete)
            await kube.services("back")
            await sink.until(lambda: services(sink) == {"front", "back"})
            assert kube.api.faults.struck == 1
            assert len(kube.asked("/services?limit=2")) == 1
            assert len(kube.asked("/services?limit=1")) == 1, "it was asked how far it is"
            assert sink.sentences == [], "one broken watch is no trouble"


async def test_page_tokens_that_expire_make_one_large_list(tmp_path: Path) -> None:
    async with world(tmp_path) as kube:
        await kube.services("a", "b", "c")
        kube.api.faults.add(Fault("/services?limit=2&continue", status=410))
        async with following(kube.kubeconfig(), LISTING) as sink:
            await sink.until(lambda: sink.complete)
            assert services(sink) == {"a", "b", "c"}
            assert kube.asked("GET /api/v1/services")[:3] == [
                "GET /api/v1/services?limit=2",
                "GET /api/v1/services?limit=2&continue=token-0",
                "GET /api/v1/services",
            ]


async def test_too_old_is_understood_in_both_its_forms(tmp_path: Path) -> None:
    for as_status in (True, False):
        async with world(tmp_path) as kube:
            kube.api.options.gone_as_status = as_status
            await kube.services("front", "gone")
            async with following(kube.kubeconfig(), LISTING) as sink:
                await sink.until(lambda: sink.complete)
                await kube.server.stop()
                del kube.api.store.objects["services"]["default", "gone"]
                kube.api.store.forget_history()
                await kube.server.start()
                await sink.until(lambda: services(sink) == {"front"})
                assert sink.removed == [Ref(Kind.SERVICE, "default", "gone")]


async def test_bookmarks_spare_quiet_kinds_a_new_list(tmp_path: Path) -> None:
    async with world(tmp_path) as kube:
        kube.api.options.bookmark_every = 0.05
        await kube.services("front")
        async with following(kube.kubeconfig(), LISTING) as sink:
            await sink.until(lambda: sink.complete)
            await kube.admin.apply(*(make.namespace(f"n{n}") for n in range(5)))
            revision = kube.api.store.revision
            kube.api.requests.clear()

            def goes_on_later() -> bool:
                """A service watch goes on from a revision that only other kinds had."""
                kube.api.cut()
                asked = kube.asked("/services?watch=true")
                return bool(asked) and _revision(asked[-1]) >= revision

            await eventually(goes_on_later, every=0.3)
            assert not kube.asked("limit=2"), "nothing was listed again"


def _revision(request: str) -> int:
    return int(request.partition("resourceVersion=")[2].partition("&")[0])


async def test_a_server_without_streamed_lists_is_asked_for_pages(tmp_path: Path) -> None:
    async with world(tmp_path) as kube:
        kube.api.options.watch_list = False
        await kube.services("front")
        async with following(kube.kubeconfig()) as sink:
            await sink.until(lambda: sink.complete)
            assert services(sink) == {"front"}
            assert sink.sentences == []
            assert len(kube.asked("/services?", "sendInitialEvents")) == 1


async def test_a_streamed_list_that_never_ends_is_given_up(tmp_path: Path) -> None:
    impatient = msgspec.structs.replace(QUICK, answer_timeout=0.5)
    async with world(tmp_path) as kube:
        await kube.services("front")
        kube.api.faults.add(Fault("sendInitialEvents=true", stall=True, times=100))
        async with following(kube.kubeconfig(), impatient) as sink:
            await sink.until(lambda: sink.complete)
            assert services(sink) == {"front"}


async def test_a_streamed_list_that_breaks_off_removes_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as kube:
        await kube.services("a", "b", "c")
        async with following(kube.kubeconfig()) as sink:
            await sink.until(lambda: sink.complete)
            kube.api.faults.add(Fault("/services?", cut_after=700, times=2))
            kube.api.store.forget_history()
            kube.api.cut()
            await sink.until(lambda: sink.times_synced[Kind.SERVICE] == 2)
            assert services(sink) == {"a", "b", "c"}
            assert sink.removed == []


async def test_garbage_is_a_broken_stream(tmp_path: Path) -> None:
    async with world(tmp_path) as kube:
        await kube.services("front")
        kube.api.faults.add(Fault("/services?limit", status=200, body=b"<html>", times=2))
        kube.api.faults.add(Fault("/services?watch", status=200, body=b"{]\n", times=2))
        async with following(kube.kubeconfig(), LISTING) as sink:
            await sink.until(lambda: sink.complete)
            await kube.services("back")
            await sink.until(lambda: services(sink) == {"front", "back"})
            assert any("something that is no list" in said for said in sink.sentences)
            assert any("what is no event" in said for said in sink.sentences)


async def test_an_event_without_end_is_a_broken_stream(tmp_path: Path) -> None:
    tight = msgspec.structs.replace(LISTING, line_bytes=4096)
    async with world(tmp_path) as kube:
        kube.api.faults.add(Fault("/services?watch", status=200, body=b"x" * 9000, times=2))
        async with following(kube.kubeconfig(), tight) as sink:
            await sink.until(lambda: any("larger than 4096 bytes" in s for s in sink.sentences))
            await kube.services("front")
            await sink.until(lambda: services(sink) == {"front"})


async def test_a_server_restored_from_a_backup_is_read_again(tmp_path: Path) -> None:
    async with world(tmp_path) as kube:
        await kube.services("kept", "lost")
        async with following(kube.kubeconfig(), LISTING) as sink:
            await sink.until(lambda: sink.complete)
            await kube.server.stop()
            del kube.api.store.objects["services"]["default", "lost"]
            kube.api.store.history.clear()
            kube.api.store.revision = kube.api.store.oldest = 500
            await kube.server.start()
            await sink.until(lambda: services(sink) == {"kept"})


async def test_watches_that_the_server_ends_are_no_trouble(tmp_path: Path) -> None:
    brief = msgspec.structs.replace(QUICK, watch_lifetime=0.5)
    async with world(tmp_path) as kube, following(kube.kubeconfig(), brief) as sink:
        await sink.until(lambda: sink.complete)
        await eventually(lambda: len(kube.asked("/services?watch=true")) > 3)
        await kube.services("later")
        await sink.until(lambda: services(sink) == {"later"})
        assert len(kube.asked("/services?", "sendInitialEvents")) == 1
        assert sink.sentences == []
        assert sink.removed == []


async def test_large_pages_are_followed_by_smaller_ones(tmp_path: Path) -> None:
    small: KubernetesSettings = msgspec.structs.replace(LISTING, page_limit=8, page_bytes=1000)
    async with world(tmp_path) as kube:
        await kube.services(*(f"s{number:02}" for number in range(20)))
        async with following(kube.kubeconfig(), small) as sink:
            await sink.until(lambda: sink.complete)
            assert len(services(sink)) == 20
            pages = kube.asked("/services?limit")
            limits = [each.partition("limit=")[2].partition("&")[0] for each in pages]
            assert limits[:3] == ["8", "4", "2"]
