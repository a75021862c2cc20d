"""Propagation, measured: the probes of every cluster, followed into a map of this node.

A probe waits until everything that was told before it is in the maps, then it is written to a map
of its own, and only then its time is taken. No program reads that map.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog

from bpf.errors import BpfError
from bpf.maps import BpfMap
from bpf.propagation import pack_key, pack_value
from clustermesh import propagation
from clustermesh.checks import BadFact
from clustermesh.keys import Layout
from clustermesh.model import ClusterConfig
from clustermesh.propagation import Arrivals, Probe
from clustermesh.remotes.gate import Held
from clustermesh.remotes.session import Follow
from clustermesh.status import Propagation
from kvstore.client import Reader
from kvstore.events import Put
from kvstore.watch import FollowSettings, ending, follow

log = structlog.get_logger()


class Propagations:
    """Every cluster's probes. ``wake`` makes the writer come by, who calls ``land``.

    For ``delay`` seconds after the first was heard none is timed: the first lists are in the way,
    and a restart that finds everything right writes nothing.
    """

    def __init__(
        self,
        held: BpfMap,
        *,
        wake: Callable[[], None],
        delay: float = 0.0,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self._map = held
        self._delay = delay
        self._begin: float | None = None
        self._wake = wake
        self._now = now
        self._arrivals: dict[str, Arrivals] = {}
        self._waiting: dict[str, tuple[int, Probe]] = {}

    def listen(self, cluster: str, config: ClusterConfig) -> Sequence[Follow]:
        """What follows the probes of a cluster for as long as a connection lasts."""
        layout = Layout.CACHE if config.capabilities.cached else Layout.STATE
        place = propagation.prefix(layout, cluster)

        async def run(store: Reader, _: Held) -> None:
            async with ending(follow(store, place, settings=FollowSettings())) as slices:
                async for events in slices:
                    for event in events:
                        if isinstance(event, Put):
                            self.heard(cluster, config.id, event.value)

        return (run,)

    def heard(self, cluster: str, cluster_id: int, value: bytes) -> None:
        """A probe came."""
        try:
            probe = propagation.decode(value)
        except BadFact as error:
            log.warning("probe refused", cluster=cluster, reason=str(error))
            return
        if self._arrivals.setdefault(cluster, Arrivals()).is_news(probe) and self._begun():
            self._waiting[cluster] = (cluster_id, probe)
            self._wake()

    def _begun(self) -> bool:
        moment = asyncio.get_running_loop().time()
        if self._begin is None:
            self._begin = moment + self._delay
        return moment >= self._begin

    def land(self) -> None:
        """Everything that was told is in the maps: now the probes. A map that refuses is named."""
        moment = asyncio.get_running_loop().time()
        for cluster, (cluster_id, probe) in self._waiting.items():
            value = pack_value(probe.sent, self._now(), probe.seq)
            try:
                self._map.put_many([(pack_key(cluster_id), value)])
            except BpfError as error:
                log.warning("probe not written", cluster=cluster, reason=str(error))
                continue
            if cluster in self._arrivals:
                self._arrivals[cluster].take(probe, self._now(), moment)
        self._waiting.clear()

    def forget(self, cluster: str, cluster_id: int) -> None:
        """The cluster is no longer one of the mesh."""
        self._arrivals.pop(cluster, None)
        self._waiting.pop(cluster, None)
        with suppress(BpfError):  # an entry that nobody reads any more
            self._map.drop_many([pack_key(cluster_id)])

    def told(self, cluster: str, round_trip: float | None) -> Propagation | None:
        """The figures of a cluster."""
        found = self._arrivals.get(cluster)
        return found.told(asyncio.get_running_loop().time(), round_trip) if found else None
