"""Stories: files that tell steps and what is to be seen after them, in one place (see `Steps`).

A story runs a whole agent but for the kernel and the sockets: etcds in memory are followed, maps in
memory are written. After the steps come the texts that they name, each below ``-- name --``.
"""

import asyncio
import shlex
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from agent.dataplane import Dataplane
from agent.memory import Memory
from agent.memory import Places as Kept
from agent.remotes.own import Own
from agent.remotes.remotes import Places, Remotes
from bpf.datapath import Maps, maps_in_memory
from bpf.specs import DatapathSettings
from clustermesh import gojson, keys, local
from clustermesh.health import Board
from clustermesh.keys import Layout
from clustermesh.local import LocalKind
from clustermesh.model import Capabilities, ClusterConfig
from kvstore.client import DeleteOp, PutOp
from kvstore.memory import MemoryStore
from tests.support import lb
from tests.support.mesh import Settings, contents, garbage, writes
from tests.support.remote_world import KINDS, ME, QUICK, opener, until


def read(text: str) -> tuple[list[list[str]], dict[str, str]]:
    """Steps, word by word, and the texts by name."""
    steps, *texts = text.split("\n-- ")
    named = dict(part.split(" --\n", 1) for part in texts)
    words = (shlex.split(line, comments=True) for line in steps.splitlines())
    return [line for line in words if line], named


class Steps:
    """What a story can say; each method is a verb, and its docstring tells what it does."""

    def __init__(self, folder: Path, texts: Mapping[str, str]) -> None:
        self._folder = folder
        self._texts = texts
        self._etcds = {ME.cluster: MemoryStore()}
        self._maps = maps_in_memory(DatapathSettings.small())
        self._kept: dict[str, dict[bytes, bytes]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._remotes = folder / "remotes"
        self._remotes.mkdir()
        (folder / "own.yaml").write_text(f"endpoints:\n- http://{ME.cluster}:2379\n")

    async def play(self, steps: list[list[str]]) -> None:
        """All of them; whatever happens, no agent is left."""
        await self.cluster(ME.cluster, str(ME.cluster_id))
        try:
            for verb, *words in steps:
                try:
                    await getattr(self, verb)(*words)
                except (AssertionError, TimeoutError) as error:
                    raise AssertionError(f"at `{verb} {' '.join(words)}`: {error}") from error
        finally:
            await self.stop()

    # -- clusters ----------------------------------------------------------------------------------

    async def cluster(self, name: str, number: str, *capabilities: str) -> None:
        """A control plane begins, or takes another id: config, canaries, heartbeat."""
        store = self._etcds.setdefault(name, MemoryStore())
        layout = Layout.CACHE if "cached" in capabilities else Layout.STATE
        config = ClusterConfig(
            int(number),
            Capabilities(
                synced_canaries=True, cached=layout is Layout.CACHE, max_connected_clusters=255
            ),
        )
        ops = [PutOp(keys.canary(kind, layout, name), b"now") for kind in KINDS]
        ops += [PutOp(keys.cluster_config(name), gojson.encode(config))]
        ops += [
            PutOp(keys.HEARTBEAT, datetime.now(UTC).isoformat().encode()),
            PutOp(local.SYNCED, b"now"),
        ]
        await store.commit(ops)

    async def put(self, cluster: str, key: str, text: str) -> None:
        """A key of a cluster gets a value."""
        await self._etcds[cluster].commit([PutOp(key, self._texts[text].strip().encode())])

    async def delete(self, cluster: str, key: str) -> None:
        """A key is gone."""
        await self._etcds[cluster].commit([DeleteOp(key)])

    async def outage(self, cluster: str) -> None:
        """Its etcd does not answer."""
        self._etcds[cluster].outage()

    async def heal(self, cluster: str) -> None:
        """It answers again."""
        self._etcds[cluster].heal()

    async def compact(self, cluster: str) -> None:
        """Nobody can go on from where he was."""
        self._etcds[cluster].compact()

    async def connect(self, cluster: str) -> None:
        """The node is configured to follow it."""
        (self._remotes / cluster).write_text(f"endpoints:\n- http://{cluster}:2379\n")

    async def forget(self, cluster: str) -> None:
        """Its configuration is removed."""
        (self._remotes / cluster).unlink()

    # -- the agent ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """An agent begins, with the maps and the state directory of the one before."""
        dataplane = Dataplane(self._maps, ME, Settings(table_size=1021), retry_after=0.02)
        connect = opener(self._etcds)
        places = Kept(self._folder / "state", self._folder, 0.01)
        memory = Memory(places, ME, dataplane, Board())
        memory.adopt()
        dataplane.on_drained = lambda _, cluster_id: memory.forget(cluster_id)
        own = Own(
            self._folder / "own.yaml", me=ME, sink=dataplane, opener=connect, waits=QUICK,
            report=lambda _: None,
        )  # fmt: skip
        remotes = Remotes(
            Places(directory=self._remotes, scan_interval=0.02), me=ME, sink=dataplane,
            checkpoint=memory.remotes, opener=connect, waits=QUICK, report=lambda _: None,
        )  # fmt: skip
        self._dataplane, self._remotes_of_agent, self._own = dataplane, remotes, own
        parts = (dataplane.run(), own.run(), remotes.run(), memory.run())
        self._tasks = [asyncio.ensure_future(part) for part in parts]

    async def stop(self) -> None:
        """The agent is gone; the maps stay."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def restart(self) -> None:
        """Another agent takes its place."""
        await self.stop()
        await self.start()

    async def overdue(self, cluster: str) -> None:
        """It has been waited for long enough."""
        await until(lambda: self._dataplane.count(ME.cluster, LocalKind.SERVICES) > 0)
        self._dataplane.overdue(cluster)

    async def lose_state(self) -> None:
        """The agent is gone, and so is its state directory; the maps stay."""
        await self.stop()
        shutil.rmtree(self._folder / "state")

    async def settled(self) -> None:
        """Wait until everybody has told all, and all of it is written."""
        await until(lambda: self._own.progress.ready and self._remotes_of_agent.complete)
        await until(lambda: self._dataplane.idle)

    # -- what is seen ------------------------------------------------------------------------------

    async def where(self, frontend: str, text: str) -> None:
        """Wait until a connection to a frontend can get these backends, and no others.

        ``refused``: there is none. ``untouched``: it passes by us. A protocol may follow the port.
        """
        place, _, protocol = frontend.partition("/")
        vip, _, port = place.rpartition(":")
        wanted = set(self._texts[text].split()) if text in self._texts else text
        seen: object = None

        def now() -> bool:
            nonlocal seen
            found = lb.where(self._maps, vip.strip("[]"), int(port), protocol or "TCP")
            seen = found or ("refused" if found == set() else "untouched")
            return seen == wanted

        try:
            await until(now)
        except TimeoutError:
            raise AssertionError(f"{seen}, expected {wanted}") from None

    async def keep(self) -> None:
        """Remember what the maps hold."""
        self._kept = contents(self._maps)
        self._writes = writes(self._maps)

    async def unwritten(self) -> None:
        """Nothing was written since ``keep``, nor removed."""
        assert writes(self._maps) == self._writes, "something was written"
        assert contents(self._maps) == self._kept

    async def put_back(self) -> None:
        """The maps hold again what was kept, as if that had never been removed."""
        for name, entries in self._kept.items():
            target = getattr(self._maps, name)
            if hasattr(target, "put_many"):
                target.put_many(list(entries.items()))
            else:
                for key, table in entries.items():
                    target.swap([key], table)

    async def clean(self) -> None:
        """No service is in the maps, and nothing that only a service needs."""
        maps: Maps = self._maps
        await until(lambda: self._dataplane.idle and not services(maps))
        assert garbage(maps) == []
        assert lb.broken_references(maps) == []


def services(maps: Maps) -> list[str]:
    """Names of the service maps that are not empty."""
    held = contents(maps)
    names = ("services", "backends", "reverse_nat", "tables")
    return [name + family for name in names for family in "46" if held[name + family]]
