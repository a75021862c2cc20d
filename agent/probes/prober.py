"""Connects to the overlay addresses of remote nodes, some at a time, and tells who is silent."""

import asyncio
import hashlib
import itertools
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from heapq import heappop, heappush
from typing import Final, NamedTuple

import msgspec
import structlog

from agent.probes.dialer import Answered, Dialer
from agent.probes.targets import Targets
from agent.probes.verdict import Limits, Reach, Verdict
from clustermesh.findings import ProbeAnswer

log = structlog.get_logger()

HALF_LIFE: Final = 0.2  # weight of the newest measurement in RTT and loss
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
    rate: float = 50.0
    limits: Limits = Limits()


class ProbeStatus(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """GET /v1/probes: one remote cluster. ``loss`` is a share; ``rtt`` in seconds, if known."""

    cluster: str
    reach: Reach
    rtt: float | None
    loss: float
    nodes: int


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
        self._offset = _number(node)
        self._probes: dict[str, _ClusterProbe] = {}
        self._due: list[_Due] = []
        """A heap: when which cluster is to be asked."""
        self._count = itertools.count()
        self._new: list[_ClusterProbe] = []
        """Those that were never asked."""
        self._answered: list[_ClusterProbe] = []
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
            probe = self._probes[cluster] = _ClusterProbe(cluster, Targets(self._offset))
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

    def _schedule(self, when: float, probe: "_ClusterProbe") -> None:
        """Ask it then as a matter of course, and not when it was to be asked before."""
        probe.next = self._remember(when, probe)

    def _remember(self, when: float, probe: "_ClusterProbe") -> int:
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

    def _next(self, probe: "_ClusterProbe", now: float) -> float:
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

    def _complete(self, probe: "_ClusterProbe") -> None:
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


class _Due(NamedTuple):
    when: float
    number: int
    probe: "_ClusterProbe"


class _ClusterProbe:
    """What the probes of one cluster gave."""

    def __init__(self, cluster: str, targets: Targets) -> None:
        self.cluster = cluster
        self.targets = targets
        self.number = _number(cluster)
        self.verdict = Verdict()
        self.next = 0
        """The number of the time when it is asked as a matter of course."""
        self.asked = 0
        """How many answers are waited for."""
        self._answers: list[float | None] = []
        self._turn = 0
        self._rtt: float | None = None
        self._loss = 0.0

    @property
    def answers(self) -> bool:
        """Whether it is thought to answer."""
        return self.verdict.reach is Reach.ANSWERS

    @property
    def as_expected(self) -> bool:
        """Whether the round that has just ended is no news."""
        trusted = self.answers and not self.verdict.against
        return trusted and any(rtt is not None for rtt in self._answers)

    def choose(self, nodes: int) -> list[str]:
        """Whom to ask in a round: that begins now."""
        trusted = self.answers and not self.verdict.against
        chosen = self.targets.sample(1 if trusted else nodes, self._turn)
        self.asked = len(chosen)
        return chosen

    def hear(self, complete: "Callable[[_ClusterProbe], None]") -> Answered:
        """What to call with an answer; ``complete`` is called after the last one of a round."""

        def answered(rtt: float | None) -> None:
            self._answers.append(rtt)
            self.asked -= 1
            if not self.asked:
                complete(self)

        return answered

    def learn(self, limits: Limits) -> bool:
        """The round has ended; whether it speaks against the verdict."""
        answers, self._answers = self._answers, []
        for rtt in answers:
            self._loss += HALF_LIFE * ((rtt is None) - self._loss)
            if rtt is not None:
                self._rtt = rtt if self._rtt is None else self._rtt + HALF_LIFE * (rtt - self._rtt)
        answered = any(rtt is not None for rtt in answers)
        if not answered:
            self._turn += 1  # others may answer
        self.verdict = self.verdict.after(answered=answered, limits=limits)
        return self.verdict.against > 0

    def status(self) -> ProbeStatus:
        """As the API shows it."""
        return ProbeStatus(
            cluster=self.cluster,
            reach=self.verdict.reach,
            rtt=self._rtt,
            loss=round(self._loss, 3),
            nodes=len(self.targets),
        )


def _future(loop: asyncio.AbstractEventLoop) -> "asyncio.Future[float | None]":
    return loop.create_future()


def _set(answer: "asyncio.Future[float | None]", rtt: float | None) -> None:
    if not answer.done():  # nobody waits for it any more
        answer.set_result(rtt)


def _number(name: str) -> int:
    """Evenly spread over 32 bits, the same everywhere."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big")
