"""Connects to the overlay addresses of remote nodes, some at a time, and tells who is silent."""

import asyncio
import hashlib
import socket
import struct
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

import msgspec
import structlog

from agent.probes.verdict import Limits, Reach, Verdict, sample
from clustermesh.findings import ProbeAnswer

log = structlog.get_logger()

HALF_LIFE: Final = 0.2  # weight of the newest measurement in RTT and loss
AT_ONCE: Final = 8  # nodes that one question is about
NO_LINGER: Final = struct.pack("ii", 1, 0)

Connect = Callable[[str, int, float], Coroutine[Any, Any, float | None]]


class ProbeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds. ``rate`` bounds the connections per second of all clusters together.

    As long as a cluster answers one node of it is asked, else ``nodes`` at once. A cluster that
    falls silent is told after a pause between rounds and ``limits.failed`` times ``timeout`` and
    ``again``: by default after at most 5 s in a mesh of up to 50 clusters.
    """

    port: int = 4240
    interval: float = 1.0
    timeout: float = 0.75
    again: float = 0.1
    """Between rounds as long as a round speaks against the verdict."""
    nodes: int = 3
    rate: float = 20.0
    limits: Limits = Limits()


class ProbeStatus(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """GET /v1/probes: one remote cluster. ``loss`` is a share; ``rtt`` in seconds, if known."""

    cluster: str
    reach: Reach
    rtt: float | None
    loss: float
    nodes: int


async def connect(address: str, port: int, timeout: float) -> float | None:  # noqa: ASYNC109  # of one system call
    """Seconds until the node answered; None when it did not.

    A refusal is an answer: the packet went there through the mesh, and another one came back.
    """
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    began = loop.time()
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        try:
            async with asyncio.timeout(timeout):
                await loop.sock_connect(probe, (address, port))
        except ConnectionRefusedError:
            pass
        except OSError:  # TimeoutError is one, too
            return None
    return loop.time() - began


class Prober:
    """One task per remote cluster; ``told`` gets the silent clusters whenever they change."""

    def __init__(
        self,
        node: str,
        settings: ProbeSettings,
        *,
        told: Callable[[frozenset[str]], None],
        connect: Connect = connect,
    ) -> None:
        self._node = node
        self._settings = settings
        self._told = told
        self._connect = connect
        self._aimed: Mapping[str, Sequence[str]] = {}
        self._targets: dict[str, list[str]] = {}
        self._probes: dict[str, _ClusterProbe] = {}
        self._changed = asyncio.Event()
        self._silent: frozenset[str] = frozenset()

    def aim(self, nodes: Mapping[str, Sequence[str]]) -> None:
        """By remote cluster: addresses of its nodes as they are now."""
        if nodes == self._aimed:
            return
        self._targets = {
            cluster: self._targets[cluster]
            if addresses == self._aimed.get(cluster)
            else sorted(addresses, key=self._rank)
            for cluster, addresses in nodes.items()
        }
        self._aimed = dict(nodes)
        self._changed.set()

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
        settings = self._settings
        chosen = self._targets.get(cluster, [])[:AT_ONCE]
        async with asyncio.TaskGroup() as group:
            asked = [
                group.create_task(self._connect(it, settings.port, settings.timeout))
                for it in chosen
            ]
        return [
            ProbeAnswer(address=address, rtt=task.result())
            for address, task in zip(chosen, asked, strict=True)
        ]

    async def run(self) -> None:
        """Probe until cancelled."""
        tasks: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                for cluster in tasks.keys() - self._targets.keys():
                    tasks.pop(cluster).cancel()
                    del self._probes[cluster]
                for cluster, addresses in self._targets.items():
                    if cluster in self._probes:
                        self._probes[cluster].addresses = addresses
                    else:
                        probe = self._probes[cluster] = _ClusterProbe(cluster, addresses)
                        tasks[cluster] = group.create_task(self._watch(probe))
                self._tell()
                await self._changed.wait()

    async def _watch(self, probe: "_ClusterProbe") -> None:
        settings = self._settings
        while True:
            chosen = sample(probe.addresses, probe.most(settings.nodes), probe.turn)
            async with asyncio.TaskGroup() as group:
                asked = [
                    group.create_task(self._connect(it, settings.port, settings.timeout))
                    for it in chosen
                ]
            answers = [task.result() for task in asked]
            doubtful = probe.learn(answers, settings.limits)
            self._tell()
            pause = self._pause(probe.most(settings.nodes))
            await asyncio.sleep(settings.again if doubtful else pause)

    def _pause(self, nodes: int) -> float:
        """Between rounds of one cluster, so that all together keep to the rate."""
        settings = self._settings
        return max(settings.interval, len(self._probes) * nodes / settings.rate)

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

    def _rank(self, address: str) -> bytes:
        """Each node asks others first, so that not all ask the same."""
        return hashlib.blake2b(f"{self._node} {address}".encode(), digest_size=8).digest()


class _ClusterProbe:
    """What the probes of one cluster gave."""

    def __init__(self, cluster: str, addresses: list[str]) -> None:
        self.cluster = cluster
        self.addresses = addresses
        self.verdict = Verdict()
        self.turn = 0
        self._rtt: float | None = None
        self._loss = 0.0

    def most(self, nodes: int) -> int:
        """How many to ask in a round."""
        verdict = self.verdict
        return 1 if verdict.reach is Reach.ANSWERS and not verdict.against else nodes

    def learn(self, answers: list[float | None], limits: Limits) -> bool:
        """A round's results; whether they speak against the verdict."""
        for rtt in answers:
            self._loss += HALF_LIFE * ((rtt is None) - self._loss)
            if rtt is not None:
                self._rtt = rtt if self._rtt is None else self._rtt + HALF_LIFE * (rtt - self._rtt)
        answered = any(rtt is not None for rtt in answers)
        if not answered:
            self.turn += 1  # others may answer
        self.verdict = self.verdict.after(answered=answered, limits=limits)
        return self.verdict.against > 0

    def status(self) -> ProbeStatus:
        """As the API shows it."""
        return ProbeStatus(
            cluster=self.cluster,
            reach=self.verdict.reach,
            rtt=self._rtt,
            loss=round(self._loss, 3),
            nodes=len(self.addresses),
        )
