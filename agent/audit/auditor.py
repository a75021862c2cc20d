"""The audit of one node: now and then by itself, and when somebody asks.

What differs is read again, all of it, before it is called a difference: a change on its way through
the agent is in the etcd before it is in the maps. Only what is the same in every reading counts.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import msgspec
import structlog

from agent.audit import compare, kernel, repair
from agent.audit.addresses import Here
from agent.audit.compare import Drift
from agent.audit.frontends import Circumstances
from agent.audit.judgement import Case, Judgement, judge
from agent.audit.observed import AUDITED, Snapshot
from agent.audit.reading import Told, Unreadable, read_own, read_remote
from agent.audit.ways import ROUTES, Present
from bpf.datapath import Maps
from bpf.errors import BpfError
from clustermesh.audit import EXTRA, AuditReport, Difference
from clustermesh.remotes import directory
from clustermesh.remotes.session import Opener
from kvstore.client import StoreError
from kvstore.config import ConfigError, EtcdConfig

log = structlog.get_logger()

SHARE: Final = 200
"""An audit by itself rests this many times as long as it took: half a percent of a core."""
MOST_LOGGED: Final = 10


class Standing(NamedTuple):
    """What the agent says of itself: an audit has to know it, and cannot read it anywhere."""

    unready: str
    """Why there is nothing to audit yet, empty when there is."""
    absent: Mapping[str, str]
    """Clusters that it does not follow at present, and why."""
    ids: Mapping[str, int]
    """Of clusters, as far as they are known."""
    unreachable: frozenset[str]
    """Clusters whose data plane does not answer its probes."""


class AuditSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the etcds are configured, how the agent was started, and the waits in seconds."""

    own: Path
    remotes: Path
    every_service: bool
    table_size: int
    host_routes: int = 4096
    interval: float = 300.0
    """Between two audits that nobody asked for; 0: none."""
    pauses: tuple[float, ...] = (0.5, 2.0)
    """Before each further reading of what differs."""


class Impossible(Exception):
    """There can be no audit now; the text is a sentence."""


class _Round(NamedTuple):
    """One reading of everything."""

    revisions: dict[str, dict[str, int]]
    found: Snapshot
    routes: Present | None
    judgement: Judgement

    def entries(self) -> Iterator[tuple[str, Sized]]:
        """By member: what was compared."""
        yield from ((it, self.found[it]) for it in AUDITED)
        if self.routes is not None:
            yield ROUTES, self.routes


class Routing(Protocol):
    """Where packets to other clusters go. Both may block or fail with ``OSError``."""

    def read(self) -> Present | None:
        """As the kernel has it now; None before anything was asked for."""
        ...

    def mend(self) -> None:
        """Compare and put right, soon."""
        ...


class Auditor:
    """One audit at a time."""

    def __init__(
        self,
        here: Here,
        maps: Maps,
        settings: AuditSettings,
        *,
        opener: Opener,
        standing: Callable[[], Standing],
        rewrite: Callable[[Iterable[str]], None],
        routing: Routing,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.last: AuditReport | None = None
        self._here = here
        self._maps = maps
        self._settings = settings
        self._opener = opener
        self._standing = standing
        self._rewrite = rewrite
        self._routing = routing
        self._clock = clock
        self._turn = asyncio.Lock()

    async def run(self) -> None:
        """Audit now and then, until cancelled."""
        rest = self._settings.interval
        while rest:
            await asyncio.sleep(rest)
            try:
                report = await self.audit(thorough=False)
            except Impossible as error:
                log.debug("no audit", reason=str(error))
                continue
            rest = max(self._settings.interval, report.took * SHARE)
            for difference in report.differences[:MOST_LOGGED]:
                log.warning("map differs from the etcds", difference=difference.sentence())

    def trouble(self) -> list[str]:
        """What the last audit found, a sentence."""
        if self.last is None or not self.last.differences:
            return []
        first = self.last.differences[0].sentence()
        number = len(self.last.differences)
        return [f"{number} map entries differ from the etcds (see `meshctl audit`): {first}"]

    async def audit(self, *, thorough: bool = True) -> AuditReport:
        """Read, compare, and read again what differs. Raises ``Impossible``."""
        async with self._turn:
            report, _ = await self._audit(thorough=thorough)
            return report

    async def repair(self) -> AuditReport:
        """Audit, mend what differs, audit again: the report of that. Raises ``Impossible``."""
        async with self._turn:
            _, drifts = await self._audit(thorough=True)
            if not drifts:
                return self._report
            mended = await self._mend(drifts)
            report, _ = await self._audit(thorough=True)
            self.last = msgspec.structs.replace(report, mended=mended)
            return self.last

    @property
    def _report(self) -> AuditReport:
        if self.last is None:
            raise Impossible("there has been no audit")
        return self.last

    async def _mend(self, drifts: list[Drift]) -> int:
        for drift in drifts:
            log.info("mending", difference=drift.what.sentence())
        try:
            mended = await asyncio.to_thread(repair.remove, self._maps, drifts)
            mended += repair.write(self._maps, drifts)
        except BpfError as error:
            raise Impossible(f"not everything could be mended: {error}") from None
        left = [it.what for it in drifts if it.what.service]
        self._rewrite(sorted({it.service for it in left}))
        routes = sum(it.member == ROUTES for it in drifts)
        if routes:
            self._routing.mend()
        return mended + routes + sum(it.kind != EXTRA for it in left)

    # -- readings ---------------------------------------------------------------------------------

    async def _audit(self, *, thorough: bool) -> tuple[AuditReport, list[Drift]]:
        began, loop = self._clock(), asyncio.get_running_loop()
        start = loop.time()
        round_ = await self._round(thorough=thorough)
        drifts, first, rounds = round_.judgement.drifts, len(round_.judgement.drifts), 1
        for pause in self._settings.pauses:
            if not drifts:
                break
            await asyncio.sleep(pause)
            round_ = await self._round(thorough=thorough)
            drifts = compare.lasting(drifts, round_.judgement.drifts)
            rounds += 1
        took = loop.time() - start
        self.last = AuditReport(
            node=self._here.node,
            cluster=self._here.cluster,
            at=began + took,
            took=round(took, 3),
            rounds=rounds,
            revisions=round_.revisions,
            entries={self._name(it): len(found) for it, found in round_.entries()},
            differences=tuple(sorted(self._told(it) for it in drifts)),
            settled=first - len(drifts),
            unaudited=round_.judgement.unaudited,
        )
        return self.last, drifts

    def _told(self, drift: Drift) -> Difference:
        return msgspec.structs.replace(drift.what, map=self._name(drift.member))

    def _name(self, member: str) -> str:
        """Of the map in the kernel."""
        if member == ROUTES:
            return ROUTES
        name: str = getattr(self._maps, member).name
        return name

    async def _round(self, *, thorough: bool) -> _Round:
        standing = self._standing()
        if standing.unready:
            raise Impossible(standing.unready)
        absent = dict(standing.absent)
        own, remotes = await self._read(absent)
        case = partial(
            Case,
            here=self._here,
            given=Circumstances(
                self._settings.every_service, self._here.node, standing.unreachable
            ),
            own=own,
            remotes=remotes,
            absent=absent,
            names={number: name for name, number in standing.ids.items()},
            table_size=self._settings.table_size,
            host_routes=self._settings.host_routes,
            thorough=thorough,
        )
        revisions = {told.cluster: told.revisions for told in (own, *remotes)}
        try:
            return await asyncio.to_thread(_compare, revisions, self._maps, self._routing, case)
        except BpfError as error:
            raise Impossible(f"the maps cannot be read: {error}") from None
        except OSError as error:
            raise Impossible(f"the routes cannot be read: {error}") from None

    async def _read(self, absent: dict[str, str]) -> tuple[Told, list[Told]]:
        """The own cluster and every remote; one that cannot be read joins the absent ones."""
        here = self._here
        try:
            config = await asyncio.to_thread(EtcdConfig.load, self._settings.own)
            async with self._opener(config) as store:
                own = await read_own(store, here.cluster, here.cluster_id, here.max_clusters)
        except (StoreError, ConfigError, OSError) as error:
            raise Impossible(f"the own cluster's etcd cannot be read: {error}") from None
        files, problem = await asyncio.to_thread(
            directory.scan, self._settings.remotes, own=here.cluster
        )
        if problem:
            raise Impossible(problem)
        remotes = []
        for name, file in sorted(files.items()):
            if name in absent:
                continue
            try:
                remotes.append(await self._read_remote(file))
            except (StoreError, Unreadable, OSError) as error:
                absent[name] = str(error)
        return own, remotes

    async def _read_remote(self, file: directory.RemoteFile) -> Told:
        if file.config is None:
            raise Unreadable(file.problem)
        async with self._opener(file.config) as store:
            return await read_remote(store, file.cluster, self._here.max_clusters)


def _compare(
    revisions: dict[str, dict[str, int]], maps: Maps, routing: Routing, case: "partial[Case]"
) -> _Round:
    """Runs in a thread: it may take a second for ten thousand services."""
    found, routes = kernel.read(maps), routing.read()
    return _Round(revisions, found, routes, judge(case(found=found, routes=routes)))
