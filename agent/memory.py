"""What a node remembers from one run of its agent to the next, beside the maps themselves.

In the state directory: the facts of remote clusters, and what the own services' last good policies
are made of. Beside the maps: which cluster has which id. Where one of these is lost nothing is
wrong for longer than until its cluster has told everything again.
"""

import asyncio
from pathlib import Path
from typing import NamedTuple

from agent.checkpoint import OWN, REMOTES, Checkpoint
from agent.dataplane import Dataplane
from agent.facts import LocalKind, Me
from agent.roster import Roster
from agent.settings import PINS, Settings
from bpf.pins import Pins
from clustermesh.health import Board


class Places(NamedTuple):
    """As in ``agent.settings.Settings``; the interval is between writes, in seconds."""

    state_dir: Path
    bpf_root: Path
    checkpoint_interval: float


class Memory:
    """Owner of all that is kept. ``remotes`` is for those who learn their facts."""

    def __init__(
        self, places: Settings | Places, me: Me, dataplane: Dataplane, board: Board
    ) -> None:
        self._me = me
        self._dataplane = dataplane
        self._roster = Roster(Pins(places.bpf_root / PINS).clusters)
        self.remotes = Checkpoint(
            places.state_dir / REMOTES,
            interval=places.checkpoint_interval,
            report=board.reporter("checkpoint"),
        )
        self._own = Checkpoint(
            places.state_dir / OWN,
            interval=places.checkpoint_interval,
            report=board.reporter("checkpoint of policies"),
        )

    def adopt(self) -> None:
        """Before the first fact: what the maps hold, what its ids mean, which policies held."""
        dataplane, me = self._dataplane, self._me
        dataplane.adopt(self._roster.read())
        dataplane.on_expected = self._roster.keep
        dataplane.on_identified = self._roster.enter
        saved, record = self._own.load().get(me.cluster), self._own.record(me.cluster)
        if saved is not None and saved.cluster_id == me.cluster_id:
            dataplane.policies.restore(saved.facts.get(LocalKind.SERVICES, {}))
        else:
            record.begin(me.cluster_id)

        def keep(service: str, asked: bytes | None) -> None:
            if asked is None:
                record.delete(LocalKind.SERVICES, service)
            else:
                record.put(LocalKind.SERVICES, service, asked)

        dataplane.policies.on_good = keep

    def forget(self, cluster_id: int) -> None:
        """The id is no cluster's any more."""
        self._roster.strike(cluster_id)

    async def run(self) -> None:
        """Write what has come until cancelled, and once more then."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.remotes.run(), name="facts of remotes")
            tasks.create_task(self._own.run(), name="policies")
