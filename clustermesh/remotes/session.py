"""One connection to one cluster: who it is, when its lists are complete, and what they say."""

import asyncio
import zlib
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Final, Protocol, runtime_checkable

import msgspec

from clustermesh import keys
from clustermesh.local import AnyKind
from clustermesh.model import ClusterConfig
from clustermesh.remotes.gate import Held
from clustermesh.remotes.handshake import Refused
from clustermesh.remotes.progress import Progress
from clustermesh.remotes.supervision import ConfigChanged
from kvstore.backoff import rising
from kvstore.client import Denied, Entry, Looking, Reader, Store, StoreError, Unavailable
from kvstore.config import EtcdConfig
from kvstore.heartbeat import Heartbeat, HeartbeatSettings
from kvstore.watch import FollowSettings, connection_of, pause

ROUND_TRIPS: Final = 8
Opener = Callable[[EtcdConfig], AbstractAsyncContextManager[Store]]
Follow = Callable[[Reader, Held], Awaitable[None]]
"""Follows one kind in a store for ever; while the gate is closed deletions are not believed."""


@runtime_checkable
class Described(Protocol):
    """A store that can say which server answers."""

    def status_text(self) -> str:
        """One line for an operator."""
        ...


class Waits(msgspec.Struct, frozen=True, kw_only=True):
    """Every wait of a cluster's life, in seconds."""

    handshake: float = 60.0
    config: float = 30.0
    ceiling: float = 30.0
    heartbeat: float = 120.0
    follow: FollowSettings = FollowSettings()
    connect: float = 15.0
    """For a first connection: nobody waits longer for a cluster that does not answer."""
    sync: float = 60.0
    """For the first full lists."""
    cache: float = 0.0
    """Without connection: then services are let go. 0: never (contract kvstore 5.5)."""


LOOKS: Final = 1.0
"""Configs of all clusters that are read again in a second, where there are more than a ``FEW``."""
FEW: Final = 16
COPY_LOOKS: Final = 50.0
"""Seconds at most between two looks at a copy's config. Of a copy whose kvstoremesh has died the
config vanishes a minute before the facts, and nothing else says that it is dead: its heartbeat is
that of the etcd it is in (contract kvstore 5.5).
"""
TOGETHER: Final = 10
"""Copies in one etcd are looked at together: what another one saw is good for a tenth of the time
between two looks."""


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between those who follow a cluster.

    ``judge`` reads the cluster-config and raises ``Refused``; ``accept`` prepares for the facts
    of the cluster it describes and may raise ``Refused``, too (the bytes are the config as the
    cluster wrote it); ``readers`` says what to follow.
    """

    judge: Callable[[bytes], ClusterConfig]
    accept: Callable[[ClusterConfig, bytes], None]
    readers: Callable[[ClusterConfig], Mapping[AnyKind, Follow]]
    listeners: Callable[[ClusterConfig], Sequence[Follow]] = lambda _: ()
    """What else to follow; nobody waits for it, and its failures are nobody's trouble."""
    crowd: Callable[[], int] = lambda: 1
    """How many clusters are followed like this one."""


class Session:
    """The life of one connection; ``run`` returns only by an exception."""

    def __init__(self, *, role: Role, progress: Progress, waits: Waits) -> None:
        self._role = role
        self._progress = progress
        self._waits = waits
        self._store: Store | None = None
        self._heartbeat: Heartbeat | None = None
        self._gate: Held | None = None
        self._round_trips: deque[float] = deque(maxlen=ROUND_TRIPS)

    async def run(self, store: Store) -> None:
        """Shake hands, then follow every kind until cancelled; raises ``ConfigChanged``."""
        self._store = store
        config, value = await self._handshake(store)
        self._heartbeat = Heartbeat(
            store,
            HeartbeatSettings(limit=self._waits.heartbeat, follow=self._waits.follow),
            pulse=self._progress.pulse,
            report=self._unheard,
        )
        self._gate = gate = Held(self._heartbeat, proof=self._progress.unconfirmed)
        readers = self._role.readers(config)
        self._progress.config = config
        self._progress.begin(tuple(readers))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._heartbeat.run())
            tasks.create_task(self._recheck(store, value, gate, copy=config.capabilities.cached))
            for reader in readers.values():
                tasks.create_task(_follow(reader, store, gate))
            for listener in self._role.listeners(config):
                tasks.create_task(_follow(listener, store, gate))

    def _unheard(self, sentence: str | None) -> None:
        """The heartbeat cannot be watched, or can be again: silence has another reason then."""
        self._progress.note("heartbeat", sentence and sentence.partition("; trying again")[0])

    async def get(self, key: str) -> Entry | None:
        """A key as it stands; raises ``StoreError``."""
        if self._store is None:
            raise Unavailable("not connected")
        return await self._store.get(key)

    @property
    def etcd(self) -> str:
        """Which etcd answers, where the store can tell."""
        return self._store.status_text() if isinstance(self._store, Described) else ""

    @property
    def heartbeat_age(self) -> float | None:
        """Seconds since the heartbeat changed, None before the handshake."""
        return None if self._heartbeat is None else self._heartbeat.age()

    @property
    def round_trip(self) -> float | None:
        """Seconds of a question and its answer, the least of late; None when none was asked."""
        return min(self._round_trips, default=None)

    @property
    def held(self) -> str:
        """Why deletions are held, empty when they are not."""
        return "" if self._gate is None else self._gate.reason()

    async def _handshake(self, store: Reader) -> tuple[ClusterConfig, bytes]:
        """Ask until there is a config that this mesh can have (contract kvstore 4)."""
        for wait in rising(ceiling=self._waits.ceiling):
            connections = connection_of(store)
            try:
                return await self._ask(store)
            except (StoreError, Refused) as error:
                problem = str(error)
            except TimeoutError:
                problem = f"no answer within {self._waits.handshake:g} s"
            self._progress.trouble("connection", f"{problem}; trying again in {wait:.2g} s")
            await pause(store, connections, wait)
        raise AssertionError  # a back-off never ends

    async def _ask(self, store: Reader) -> tuple[ClusterConfig, bytes]:
        name = self._progress.cluster
        async with asyncio.timeout(self._waits.handshake):
            entry = await store.get(keys.cluster_config(name))
        if entry is None:
            raise Refused(
                f"its etcd has no {keys.cluster_config(name)}: its control plane has not started,"
                f" or the cluster's name is not {name}"
            )
        config = self._role.judge(entry.value)
        self._role.accept(config, entry.value)
        return config, entry.value

    async def _recheck(self, store: Reader, value: bytes, gate: Held, *, copy: bool) -> None:
        """Read the config again and again; the peers' rights allow no watch on it. In a large mesh
        that is what an idle agent does most: then less often."""
        part = phase(self._progress.cluster)
        while True:
            await asyncio.sleep(part * max(self._waits.config, self._rest(store, copy=copy)))
            part = 1.0
            try:
                entry = await self._look(store, copy=copy)
                if entry is None:
                    gate.config_gone()
                    continue
                if entry.value != value:
                    self._role.judge(entry.value)
                    raise ConfigChanged
            except StoreError:
                continue  # the readers of facts tell of it
            except Refused as error:
                self._progress.note("config", str(error))
                continue
            self._progress.note("config", None)
            gate.config_present()

    def _rest(self, store: Reader, *, copy: bool) -> float:
        """Seconds at least between two looks at the config, for so many clusters."""
        crowd = self._role.crowd()
        if crowd <= FEW or (copy and isinstance(store, Looking)):
            return 0.0
        return min(crowd / LOOKS, COPY_LOOKS) if copy else crowd / LOOKS

    async def _look(self, store: Reader, *, copy: bool) -> Entry | None:
        """The config, and how long it took to get it."""
        key = keys.cluster_config(self._progress.cluster)
        if copy and isinstance(store, Looking):
            with suppress(Denied):  # who may not read the others' has to ask for its own
                entry, took = await store.look(key, within=self._waits.config / TOGETHER)
                self._round_trips.append(took)
                return entry
        clock = asyncio.get_running_loop().time
        began = clock()
        entry = await store.get(key)
        self._round_trips.append(clock() - began)
        return entry


def phase(cluster: str) -> float:
    """From 0.5 to 1, for a name always the same: what is done for each of hundreds of clusters
    from time to time is not done for all of them at once.
    """
    return 0.5 + zlib.crc32(cluster.encode()) / (1 << 33)


async def _follow(reader: Follow, store: Reader, gate: Held) -> None:
    await reader(store, gate)
