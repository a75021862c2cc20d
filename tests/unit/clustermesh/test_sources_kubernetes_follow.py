"""Following one kind through outages of hours, on a clock that jumps."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from itertools import pairwise
from random import Random

from clustermesh.sources.kubernetes.follow import Follower
from clustermesh.sources.kubernetes.resources import RESOURCES, Flavour
from clustermesh.sources.kubernetes.settings import KubernetesSettings
from clustermesh.sources.kubernetes.source import KubernetesSource
from clustermesh.sources.objects import ObjectKind as Kind
from clustermesh.sources.objects import Ref
from tests.support.clock import settle, virtual
from tests.support.kube import manifests as make
from tests.support.kube.direct import DirectApi
from tests.support.kube.follow import task_of
from tests.support.kube.sink import RecordingSink

SETTINGS = KubernetesSettings(watch_list=False)
RESOURCE = {each.kind: each for each in RESOURCES[Flavour.CORE]}


@contextlib.asynccontextmanager
async def follower(api: DirectApi, kind: Kind = Kind.SERVICE) -> AsyncIterator[RecordingSink]:
    sink = RecordingSink()
    async with asyncio.TaskGroup() as tasks:
        follower = Follower(api, RESOURCE[kind], sink, SETTINGS, random=Random(1))
        task = tasks.create_task(follower.run())
        try:
            yield sink
        finally:
            task.cancel()


@virtual
async def test_ten_minutes_without_an_api_server_remove_nothing() -> None:
    api = DirectApi()
    await api.put(make.service("front"))
    await api.put(make.service("back"))
    async with follower(api) as sink:
        await sink.until(lambda: Kind.SERVICE in sink.times_synced)
        known = dict(sink.objects)
        await api.fall()
        await asyncio.sleep(60)
        assert (
            "cannot read services: connection refused; trying again" in sink.troubles[Kind.SERVICE]
        )
        await asyncio.sleep(540)
        assert sink.objects == known
        assert sink.removed == []
        assert Kind.SERVICE in sink.troubles
        await api.put(make.service("later"))
        await api.drop(make.service("back"))
        api.up = True
        await asyncio.sleep(SETTINGS.longest_wait)
        assert sink.names(Kind.SERVICE) == {"front", "later"}
        assert sink.removed == [Ref(Kind.SERVICE, "default", "back")]
        assert not sink.troubles


@virtual
async def test_history_lost_during_an_outage_is_swept_up() -> None:
    api = DirectApi()
    for name in ("front", "back", "gone"):
        await api.put(make.service(name))
    async with follower(api) as sink:
        await sink.until(lambda: Kind.SERVICE in sink.times_synced)
        await api.fall()
        await asyncio.sleep(600)
        await api.drop(make.service("gone"))
        api.store.forget_history()
        api.up = True
        await asyncio.sleep(SETTINGS.longest_wait)
        assert sink.removed == [Ref(Kind.SERVICE, "default", "gone")]
        assert sink.times_synced[Kind.SERVICE] == 2


@virtual
async def test_the_server_is_asked_ever_more_rarely() -> None:
    api = DirectApi()
    api.up = False
    async with follower(api):
        await asyncio.sleep(600)
        times = [at for at, _ in api.asked]
        gaps = [b - a for a, b in pairwise(times)]
        assert gaps[0] < 1
        assert all(SETTINGS.longest_wait * 0.7 <= gap <= SETTINGS.longest_wait for gap in gaps[8:])
        assert len(set(gaps[8:])) == len(gaps[8:]), "spread"


@virtual
async def test_a_broken_watch_is_trouble_only_when_it_cannot_be_opened_again() -> None:
    api = DirectApi()
    async with follower(api) as sink:
        await sink.until(lambda: Kind.SERVICE in sink.times_synced)
        await api.fall()
        await settle()
        api.up = True
        await asyncio.sleep(1)
        assert sink.sentences == []
        await api.fall()
        await asyncio.sleep(5)
        assert Kind.SERVICE in sink.troubles


@virtual
async def test_a_kind_that_is_not_served_is_an_empty_kind_until_it_comes() -> None:
    api = DirectApi()
    async with follower(api, Kind.SERVICE_EXPORT) as sink:
        await sink.until(lambda: Kind.SERVICE_EXPORT in sink.times_synced)
        assert not sink.troubles


@virtual
async def test_many_objects_come_in_slices() -> None:
    api = DirectApi()
    for number in range(2500):
        await api.put(make.service(f"s{number}"))
    async with follower(api) as sink:
        await sink.until(lambda: Kind.SERVICE in sink.times_synced)
        assert sum(sink.sizes) == 2500
        await api.fall()
        await settle()
        for number in range(2500):
            await api.drop(make.service(f"s{number}"))
        api.store.forget_history()
        api.up = True
        await sink.until(lambda: not sink.objects)
        assert max(sink.sizes) <= 1000


class SlowSlices(DirectApi):
    """Needs a minute for the list of EndpointSlices."""

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> bytes:
        if path.endswith("/endpointslices"):
            await asyncio.sleep(60)
        return await super().get(path, query)


@virtual
async def test_services_are_told_when_their_endpoints_are_known() -> None:
    api = SlowSlices()
    await api.put(make.service("front"))
    await api.put(make.endpoint_slice("front-a", "front", "10.1.0.1"))
    await api.put(make.pod("p", "10.1.0.1"))
    source = KubernetesSource(api, Flavour.CORE, SETTINGS)  # type: ignore[arg-type]  # reads only
    sink = RecordingSink()
    async with task_of(source.run(sink)):
        await asyncio.sleep(30)
        assert sink.names(Kind.POD) == {"p"}
        assert sink.names(Kind.SERVICE) == set()
        await sink.until(lambda: sink.names(Kind.SERVICE))
        assert sink.names(Kind.ENDPOINT_SLICE) == {"front-a"}
