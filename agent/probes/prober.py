"""Connects to the overlay addresses of remote nodes, some at a time, and tells who is silent."""

import asyncio
import itertools
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from heapq import heappop, heappush
from typing import Final, NamedTuple

import msgspec
import structlog

from agent.probes.cluster import ClusterProbe, ProbeStatus, number_of
from agent.probes.dialer import Answered, Dialer
from agent.probes.targets import Targets
from agent.probes.verdict import Limits, Reach
from clustermesh.findings import ProbeAnswer

log = structlog.get_logger()

AT_ONCE: Final = 8  # nodes that one question is about
EVERY: Final = 0.5
"""Seconds between two moments at which clusters are asked, each at some of them: to ask many
together costs little, to wake up for each costs ten times as much."""
SLACK: Final = 0.001
"""Seconds within which moments are the same."""

Ask = Callable[[str, Answered], None]
"""Begin to ask an address."""


class ProbeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds.

    As long as a cluster answers, one node of it is asked every ``interval``; of more clusters than
    ``rate`` allows that less often, but at least every ``latest``. One that did not answer is asked
    again at once, ``nodes`` at a time. So a cluster that falls silent is told after at most
    ``latest`` and ``limits.failed`` times ``timeout`` and ``again``: 4.55 s by default. Those that
    do not answer at all are asked ``rate`` times a second, all together.
    """

    port: int = 4240
    interval: float = 1.0
    latest: float = 2.0
    timeout: float = 0.75
    again: float = 0.1
    """Between rounds as long as a round speaks against the verdict."""
    nodes: int = 3
    rate: float = 20.0
    limits: Limits = Limits()


class _Due(NamedTuple):
    when: float
    number: int
    probe: ClusterProbe


class Prober:
    """Owner of the probes; ``told`` gets the silent clusters whenever they change."""

    def __init__(
        self,
        node: str,
        settings: ProbeSettings,
        *,
        told: Callable[[frozenset[str]], None],
        ask: Ask | None = None,
    ) -> None:
        self._settings = settings
        self._told = told
        self._ask = ask
        self._offset = number_of(node)
        self._probes: dict[str, ClusterProbe] = {}
        self._due: list[_Due] = []
        """A heap: when which cluster is to be asked."""
        self._count = itertools.count()
        self._new: list[ClusterProbe] = []
        """Those that were never asked."""
        self._answered: list[ClusterProbe] = []
        """Those of which all answers are there."""
        self._news = asyncio.Event()
        self._silent: frozenset[str] = frozenset()
        self._changed = False
        """Set when others may be silent than were told."""
        self._mute = 0
        """How many clusters do not answer, or did never."""

    def aim(self, cluster: str, node: str, address: str) -> None:
        """A node of a remote cluster is there to be asked; empty: it is not."""
        probe = self._probes.get(cluster)
        if probe is None:
            probe = self._probes[cluster] = ClusterProbe(cluster, Targets(self._offset))
            self._mute += 1
            self._new.append(probe)
            self._news.set()
        probe.targets.put(node, address)
        if not probe.targets:
            del self._probes[cluster]
            self._mute -= not probe.answers
            self._changed = True
            self._news.set()

    def statuses(self) -> list[ProbeStatus]:
        """Every remote cluster that has nodes to ask, by name."""
        return [self._probes[cluster].status() for cluster in sorted(self._probes)]

    def of(self, cluster: str) -> ProbeStatus | None:
        """One of them."""
        probe = self._probes.get(cluster)
        return probe.status() if probe else None

    @property
    def silent(self) -> frozenset[str]:
        """Clusters of which no node answers."""
        return self._silent

    def trouble(self) -> list[str]:
        """A sentence for each silent cluster."""
        return [
            f"cluster {cluster}: none of its nodes answers through the mesh; its backends are used"
            " only where nothing else is left"
            for cluster in sorted(self._silent)
        ]

    async def now(self, cluster: str) -> list[ProbeAnswer]:
        """Ask some nodes of a cluster at once, whatever is thought of it, if any is known."""
        probe = self._probes.get(cluster)
        chosen = probe.targets.sample(AT_ONCE, 0) if probe else []
        loop = asyncio.get_running_loop()
        answers = [_future(loop) for _ in chosen]
        with ExitStack() as stack:
            ask = self._ask or stack.enter_context(self._dialer()).ask
            for address, answer in zip(chosen, answers, strict=True):
                ask(address, partial(_set, answer))
            found = [await answer for answer in answers]
        return [
            ProbeAnswer(address=address, rtt=rtt)
            for address, rtt in zip(chosen, found, strict=True)
        ]

    def _dialer(self) -> Dialer:
        return Dialer(self._settings.port, self._settings.timeout)

    async def run(self) -> None:
        """Probe until cancelled."""
        loop = asyncio.get_running_loop()
        with ExitStack() as stack:
            ask = self._ask or stack.enter_context(self._dialer()).ask
            while True:
                self._news.clear()
                self._learn(loop.time())
                self._ask_due(ask, loop.time())
                if self._changed:
                    self._changed = False
                    self._tell()
                timer = loop.call_at(self._due[0].when, self._news.set) if self._due else None
                await self._news.wait()
                if timer is not None:
                    timer.cancel()

    def _learn(self, now: float) -> None:
        for probe in self._new:
            self._schedule(now, probe)
        self._new.clear()
        for probe in self._answered:
            if self._probes.get(probe.cluster) is probe:
                before = probe.answers
                if probe.learn(self._settings.limits):
                    self._remember(now + self._settings.again, probe)
                if before is not probe.answers:
                    self._mute += before - probe.answers
                    self._changed = True
                    self._schedule(self._next(probe, now), probe)
        self._answered.clear()

    def _schedule(self, when: float, probe: ClusterProbe) -> None:
        """Ask it then as a matter of course, and not when it was to be asked before."""
        probe.next = self._remember(when, probe)

    def _remember(self, when: float, probe: ClusterProbe) -> int:
        heappush(self._due, _Due(when, number := next(self._count), probe))
        return number

    def _ask_due(self, ask: Ask, now: float) -> None:
        while self._due and self._due[0].when <= now + SLACK:
            _, number, probe = heappop(self._due)
            if self._probes.get(probe.cluster) is not probe:
                continue
            if number == probe.next:
                self._schedule(self._next(probe, now), probe)
            elif not probe.verdict.against:
                continue
            if not probe.asked:
                for address in probe.choose(self._settings.nodes):
                    ask(address, probe.hear(self._complete))

    def _next(self, probe: ClusterProbe, now: float) -> float:
        """When the cluster is to be asked again as a matter of course."""
        settings = self._settings
        if probe.answers:
            answering = len(self._probes) - self._mute
            period = max(settings.interval, min(settings.latest, answering / settings.rate))
        else:
            period = max(settings.interval, self._mute * settings.nodes / settings.rate)
        moment = EVERY * (probe.number % max(int(period / EVERY), 1))
        soonest = now + 2 * SLACK
        return soonest + period - (soonest - moment) % period

    def _complete(self, probe: ClusterProbe) -> None:
        self._answered.append(probe)
        if not probe.as_expected:
            self._news.set()  # else it is soon enough when others are asked

    def _tell(self) -> None:
        silent = frozenset(
            cluster
            for cluster, probe in self._probes.items()
            if probe.verdict.reach is Reach.SILENT
        )
        if silent == self._silent:
            return
        for cluster in silent - self._silent:
            log.warning("data plane silent", cluster=cluster)
        for cluster in self._silent - silent:
            log.info("data plane answers again", cluster=cluster)
        self._silent = silent
        self._told(silent)


def _future(loop: asyncio.AbstractEventLoop) -> "asyncio.Future[float | None]":
    return loop.create_future()


def _set(answer: "asyncio.Future[float | None]", rtt: float | None) -> None:
    if not answer.done():  # nobody waits for it any more
        answer.set_result(rtt)
