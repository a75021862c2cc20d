"""The Kubernetes source: every kind of a flavour, followed at once over one set of connections."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Self

from clustermesh.sources.kubernetes import discovery
from clustermesh.sources.kubernetes.access import Credentials
from clustermesh.sources.kubernetes.api import Api
from clustermesh.sources.kubernetes.failures import ApiFailure, Unreachable
from clustermesh.sources.kubernetes.follow import Follower
from clustermesh.sources.kubernetes.lease import Lease
from clustermesh.sources.kubernetes.numbering import Numbered, Ordered
from clustermesh.sources.kubernetes.records import Numbers
from clustermesh.sources.kubernetes.resources import RECORDS, RESOURCES, Flavour
from clustermesh.sources.kubernetes.settings import KubernetesSettings
from clustermesh.sources.objects import ObjectKind
from clustermesh.sources.port import SourceSink
from kvstore.backoff import Backoff

FIRST = frozenset({ObjectKind.NAMESPACE, ObjectKind.MESH_IDENTITY})
"""Others build on these: namespaces' labels are part of pods' identities, and recorded numbers."""
ENDPOINTS = frozenset({ObjectKind.ENDPOINT_SLICE})
LAST = frozenset({ObjectKind.SERVICE})
"""Told when their endpoints are known: with some of them missing, peers would drop backends that
they have from an earlier life of ours."""


class KubernetesSource:
    """The local cluster's objects from its API server; implements ``Source``."""

    def __init__(
        self,
        api: Api,
        flavour: Flavour,
        settings: KubernetesSettings,
        kinds: frozenset[ObjectKind] | None = None,
    ) -> None:
        """``api`` is entered already; see ``open_kubernetes``. ``kinds`` None: all it has."""
        self.flavour = flavour
        self._api = api
        self._settings = settings
        self._resources = [
            each for each in RESOURCES[flavour] if kinds is None or each.kind in kinds
        ]
        self._numbers: Numbers | None = None
        self._lease: Lease | None = None

    def only(self, kinds: frozenset[ObjectKind]) -> Self:
        """The same source with no other kinds: what is not followed needs no permission."""
        return type(self)(self._api, self.flavour, self._settings, kinds)

    def numbered(self, numbers: range) -> Numbers:
        """Have identities of flavour core numbered and recorded, before ``run``."""
        self._resources.append(RECORDS)
        self._lease = Lease(self._api, self._settings.lease())
        self._numbers = Numbers(self._api, numbers, self._lease)
        return self._numbers

    def elected(self, name: str) -> tuple[Api, Lease]:
        """The API server for one who writes to it, and the lease by which it is the only one."""
        return self._api, Lease(self._api, self._settings.lease(name))

    @property
    def kinds(self) -> frozenset[ObjectKind]:
        """What it follows."""
        return frozenset(each.kind for each in self._resources)

    async def run(self, sink: SourceSink) -> None:
        """Follow every kind until cancelled."""
        kinds = self.kinds
        async with asyncio.TaskGroup() as tasks:
            if self._numbers and self._lease:
                ordered: Ordered = (numbered := Numbered(sink, self._numbers))
                tasks.create_task(self._lease.run(), name="lease")
                tasks.create_task(numbered.run(), name="numbers")
            else:
                ordered = Ordered(sink)
            self._follow(tasks, ordered, kinds & FIRST)
            await ordered.read(kinds & FIRST)
            self._follow(tasks, ordered, kinds - FIRST - LAST)
            await ordered.read(kinds & ENDPOINTS)
            self._follow(tasks, ordered, kinds & LAST)

    def _follow(
        self, tasks: asyncio.TaskGroup, sink: SourceSink, kinds: frozenset[ObjectKind]
    ) -> None:
        for resource in self._resources:
            if resource.kind in kinds:
                follower = Follower(self._api, resource, sink, self._settings)
                tasks.create_task(follower.run(), name=f"follow/{resource.title}")


@asynccontextmanager
async def open_kubernetes(
    settings: KubernetesSettings,
    report: Callable[[str | None], None],
    credentials: Credentials | None = None,
) -> AsyncIterator[KubernetesSource]:
    """Reach the API server, find out its flavour unless that is set, and give the source.

    Waits for as long as there is no answer, telling ``report`` a sentence, and None when there is.
    """
    async with Api(settings, credentials) as api:
        flavour = settings.flavour or await _detect(api, settings, report)
        yield KubernetesSource(api, flavour, settings)


async def _detect(
    api: Api, settings: KubernetesSettings, report: Callable[[str | None], None]
) -> Flavour:
    waits = Backoff(first=settings.first_wait, ceiling=settings.longest_wait)
    while True:
        try:
            found = await discovery.flavour(api)
        except ApiFailure as failure:
            said = failure.retry_after if isinstance(failure, Unreachable) else 0.0
            wait = max(next(waits), said)
            report(
                f"cannot find out what the cluster runs: {failure}; trying again in {wait:.1f} s"
            )
            await asyncio.sleep(wait)
        else:
            report(None)
            return found
