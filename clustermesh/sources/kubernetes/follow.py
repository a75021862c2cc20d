"""One kind, listed and watched for ever: outages, lost history and refusals are ordinary waits."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from random import Random
from typing import Protocol

from clustermesh.sources.kubernetes import discovery, wire
from clustermesh.sources.kubernetes.failures import (
    ApiFailure,
    Forbidden,
    Gone,
    Missing,
    Unauthorized,
    Unreachable,
    Unsupported,
)
from clustermesh.sources.kubernetes.resources import Resource, Served
from clustermesh.sources.kubernetes.settings import KubernetesSettings
from clustermesh.sources.kubernetes.teller import Teller
from clustermesh.sources.kubernetes.wire import Bookmark, Happening
from clustermesh.sources.port import SourceSink
from kvstore.backoff import Backoff

_EVERYTHING_FIRST = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}


class Reads(Protocol):
    """What following needs of an API server; each raises an ``ApiFailure``."""

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> bytes:
        """The body of an answer."""
        ...

    def stream(
        self, path: str, query: Mapping[str, str], *, lifetime: float
    ) -> AbstractAsyncContextManager[AsyncIterator[list[bytes]]]:
        """A watch, accepted once entered."""
        ...


class Follower:
    """Tells a sink everything about one kind; owns the place in history."""

    def __init__(
        self,
        api: Reads,
        resource: Resource,
        sink: SourceSink,
        settings: KubernetesSettings,
        *,
        random: Random | None = None,
    ) -> None:
        """``random`` spreads waits and the ends of watches."""
        self._api = api
        self._resource = resource
        self._settings = settings
        self._teller = Teller(resource.kind, sink)
        self._random = random or Random()  # noqa: S311 - spreads load, keeps no secret
        self._waits = Backoff(
            first=settings.first_wait, ceiling=settings.longest_wait, random=self._random
        )
        self._served: Served | None = None
        self._version = ""
        """Where to go on watching; empty: everything has to be read first."""
        self._streams_lists = settings.watch_list
        self._pages = True
        self._limit = settings.page_limit
        self._breaks = 0
        """Interruptions since anything was last heard."""
        self._losses = 0
        """How often history was lost since then."""
        self._doubted = False
        """Another server, or the same one restored from a backup, may answer now."""

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                wait = await self._round()
            except ApiFailure as failure:
                wait = self._after(failure)
            await asyncio.sleep(wait)

    async def _round(self) -> float:
        """Read everything if need be, watch until the server ends it; seconds to wait then."""
        served = await self._find()
        if served is None:
            await self._none()
            return self._spread(self._settings.refused_wait)
        if self._doubted and self._version:
            await self._compare(served)
        if not self._version and not self._streams_lists:
            await self._list(served)
        began = asyncio.get_running_loop().time()
        heard = await self._watch(served)
        lived = asyncio.get_running_loop().time() - began
        return 0.0 if heard or lived > self._settings.longest_wait else next(self._waits)

    def _after(self, failure: ApiFailure) -> float:
        """Note a failure and say how long to wait."""
        again, wait = "reading everything again", next(self._waits)
        match failure:
            case Gone():
                self._version = ""
                self._losses += 1
                if self._losses == 1:
                    return 0.0
            case Missing() | Forbidden() | Unsupported():
                wait = self._spread(self._settings.refused_wait)
                again = "asking again"
                self._served = None
                if not isinstance(failure, Forbidden):
                    self._version = ""
            case Unreachable():
                wait = max(wait, failure.retry_after)
                again = "trying again"
                self._doubted = True
                self._breaks += 1
                if self._breaks == 1 and self._version:
                    return wait
        self._teller.trouble(f"{self._sentence(failure)}; {again} in {wait:.1f} s")
        return wait

    def _sentence(self, failure: ApiFailure) -> str:
        what = self._resource.title
        match failure:
            case Forbidden():
                return f"may not list and watch {what}: grant both in the ClusterRole ({failure})"
            case Unauthorized():
                return f"cannot read {what}: not let in ({failure})"
            case _:
                return f"cannot read {what}: {failure}"

    def _spread(self, seconds: float) -> float:
        return seconds * (0.75 + 0.5 * self._random.random())

    def _progress(self) -> None:
        self._breaks = self._losses = 0
        self._waits.reset()

    async def _find(self) -> Served | None:
        """The version to ask for; None when an optional kind is not served."""
        if self._served is None:
            self._served = await discovery.serves(self._api, self._resource)
            if self._served is None and not self._resource.optional:
                raise Missing("the API server does not serve it; is its CRD installed")
        return self._served

    async def _none(self) -> None:
        self._teller.begin()
        await self._filled("")

    async def _filled(self, version: str) -> None:
        """Everything that exists at ``version`` has been told."""
        await self._teller.complete()
        self._version = version
        self._pages = True
        self._progress()

    async def _compare(self, served: Served) -> None:
        """Raises ``Gone`` when the server does not know yet what it told before.

        It would not say so by itself: a watch from a revision to come is silent until then.
        """
        body = await self._api.get(served.path, served.query(limit="1"))
        _later(self._version, wire.read_page(self._resource.kind, body).version)
        self._doubted = False

    async def _list(self, served: Served) -> None:
        """Everything, page by page; in one piece when the pages' snapshot does not last."""
        self._teller.begin()
        token, version = "", ""
        while True:
            limit = str(self._limit) if self._pages else ""
            query = served.query(limit=limit, **{"continue": token})
            try:
                body = await self._api.get(served.path, query)
            except Gone:
                self._pages = not token
                raise
            page = wire.read_page(self._resource.kind, body)
            version, token = version or page.version, page.token
            await self._teller.listed(page)
            if len(body) > self._settings.page_bytes:
                self._limit = max(1, self._limit // 2)
            if not token:
                break
        await self._filled(version)

    async def _watch(self, served: Served) -> bool:
        """One watch, until the server ends it; whether anything was heard."""
        lifetime = self._settings.watch_lifetime * (1 + self._random.random())
        query = served.query(
            watch="true",
            allowWatchBookmarks="true",
            timeoutSeconds=str(max(1, int(lifetime))),
            **({"resourceVersion": self._version} if self._version else _EVERYTHING_FIRST),
        )
        try:
            return await self._stream(served.path, query, lifetime)
        except (Unsupported, TimeoutError):
            if self._version:
                raise
            self._streams_lists = False  # this server wants to be asked for lists
            return True

    async def _stream(self, path: str, query: Mapping[str, str], lifetime: float) -> bool:
        """Hear a watch. Raises ``TimeoutError`` when it is silent before everything was told."""
        loop = asyncio.get_running_loop()
        silence = self._settings.answer_timeout
        heard = False
        async with (
            asyncio.timeout(None if self._version else silence) as patience,
            self._api.stream(path, query, lifetime=lifetime) as reads,
        ):
            if self._version:
                self._teller.well()
            else:
                self._teller.begin()
            async for lines in reads:
                await self._hear(wire.read_events(self._resource.kind, lines))
                patience.reschedule(None if self._version else loop.time() + silence)
                heard = True
        if not self._version:
            raise Unreachable("the API server's watch ended before it had told what exists")
        return heard

    async def _hear(self, happenings: Sequence[Happening]) -> None:
        if not self._version:
            ends = (i for i, each in enumerate(happenings) if _ends_the_beginning(each))
            end = next(ends, len(happenings))
            await self._teller.heard(happenings[:end])
            if end == len(happenings):
                return
            await self._filled(happenings[end].version)
            happenings = happenings[end + 1 :]
        await self._teller.heard(happenings)
        for each in happenings:
            self._version = _later(self._version, each.version)
        self._progress()


def _ends_the_beginning(happening: Happening) -> bool:
    return isinstance(happening, Bookmark) and happening.initial_end


def _later(known: str, told: str) -> str:
    """The newer revision. A server that goes back in time was restored: raises ``Gone``."""
    if not told:
        return known
    if known.isdecimal() and told.isdecimal() and int(told) < int(known):
        raise Gone(f"the API server went back in time, from revision {known} to {told}")
    return told
