"""The node's maps, kept true to the facts: one owner, one writer.

Facts come through ``agent.facts.Sink`` and are worked into two shapes of state: services, which are
merged, and addresses, each of which is one entry. A change is written at once when the writer is
idle; when it is busy, changes gather and go in batches. What is referred to is written before what
refers to it, across both shapes: nodes, addresses, services; removal the other way round.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Protocol

import structlog

from agent.addresses.addresses import Addresses
from agent.addresses.own_ranges import OwnRanges
from agent.addresses.routes import Route
from agent.clusters import Clusters
from agent.explain.explain import Explainer
from agent.facts import AnyKind, Change, LocalKind, Me
from agent.known import Known
from agent.picture import Picture
from agent.services.plan import BackendEntry
from agent.services.policies import Policies
from agent.services.services import Services
from agent.turns import Turns
from bpf.datapath import Maps
from bpf.layout_lb import BackendValue
from clustermesh.keys import Kind, cluster_of
from clustermesh.model import Identity
from clustermesh.status import Count, IdentityStatus, NodeStatus, Refusal, ServiceStatus

log = structlog.get_logger()

SERVICE_KINDS: Final = frozenset({LocalKind.SERVICES, Kind.SERVICES, Kind.ENDPOINT_SLICES})
STRANGE: Final = "its nodes and addresses are not known yet"


class Settings(Protocol):
    """What the data plane needs to know of ``agent.settings.Settings``."""

    @property
    def kube_proxy_replacement(self) -> bool:
        """Serve every service, not only global ones."""
        ...

    @property
    def table_size(self) -> int:
        """Entries of a selection table."""
        ...

    @property
    def host_routes(self) -> int:
        """Most routes to single addresses."""
        ...


class Dataplane:
    """Implements ``agent.facts.Sink`` over the maps of one node.

    What the kernel refuses is tried again after ``retry_after`` seconds, and then ever less often.
    """

    def __init__(self, maps: Maps, me: Me, settings: Settings, *, retry_after: float = 1.0) -> None:
        self.on_routes: Callable[[], None] = lambda: None
        """Called when ``routes()`` or the nodes behind them have changed."""
        self.routed: Callable[[], bool] = lambda: True
        """Whether there is a way to where services may lead; call ``wake`` when that changes."""
        self._strange: Mapping[str, str] = {}
        self._holding: tuple[Mapping[str, str], ...] = ()
        self.on_removed: Callable[[Iterable[BackendValue]], None] = lambda _: None
        """Called with backends that are in the maps no more."""
        self.on_written: Callable[[], None] = lambda: None
        """Called whenever everything that was told so far is in the maps."""
        self.on_expected: Callable[[frozenset[str]], None] = lambda _: None
        """Called with the clusters of the mesh: those that are configured, and the own one."""
        self.on_drained: Callable[[str, int], None] = lambda _, __: None
        """Called with name and id of a cluster that has left the mesh."""
        self.on_identified: Callable[[str, int], None] = lambda _, __: None
        """Called with name and id of a cluster that belongs to the mesh."""
        self._maps = maps
        self._me = me
        self._clusters = Clusters(me)
        self._services = Services(
            maps,
            me,
            self._clusters,
            every_service=settings.kube_proxy_replacement,
            table_size=settings.table_size,
            retry_after=retry_after,
        )
        self._addresses = Addresses(maps, me, self._clusters, host_routes=settings.host_routes)
        self._identities: Known[str] = Known()
        self._exports: Known[None] = Known()
        self._picture = Picture(me, self._services, self._addresses)
        self.explainer = Explainer(me, maps, self._clusters, self._services, self._picture)
        self._turns = Turns(self, retry_after=retry_after)
        self._services.on_landed = self._turns.wake
        self._services.programs.on_buried = self._removed
        self._routes_changed = False
        self._pruned_services = False

    # -- Sink -------------------------------------------------------------------------------------

    def adopt(self, names: Mapping[int, str] = MappingProxyType({})) -> None:
        """Take over what an earlier run left in the maps: before the first fact.

        ``names``: what it called the clusters' ids.
        """
        self._clusters.remember(names)
        self._services.adopt()
        self._addresses.adopt()

    def expect(self, clusters: frozenset[str]) -> None:
        """See ``Sink``."""
        self._clusters.expect(clusters)
        self.on_expected(clusters | {self._me.cluster})
        self._lives_changed()

    def identify(self, cluster: str, cluster_id: int) -> None:
        """See ``Sink``."""
        self._clusters.identify(cluster, cluster_id)
        self.on_identified(cluster, cluster_id)
        self._lives_changed()

    def apply(self, cluster: str, kind: AnyKind, changes: Sequence[Change]) -> None:
        """See ``Sink``."""
        if kind is Kind.IPS:
            self._addresses.apply(cluster, changes)
        elif kind is Kind.NODES:
            self._addresses.nodes.apply(cluster, changes)
            self._routes_changed |= not self._clusters.awaits_nodes(cluster)
        elif kind in SERVICE_KINDS:
            self._services.apply(cluster, kind, changes)
        elif kind is Kind.IDENTITIES:
            self._remember(cluster, changes)
        else:
            self._count_exports(cluster, changes)
        self._turns.told(len(changes))

    def _remember(self, cluster: str, changes: Sequence[Change]) -> None:
        for key, fact in changes:
            if isinstance(fact, Identity):
                self._identities.put(cluster, key, fact.labels)
            else:
                self._identities.drop(cluster, key)

    def _count_exports(self, cluster: str, changes: Sequence[Change]) -> None:
        for key, fact in changes:
            if fact is not None:
                self._exports.put(cluster, key, None)
            else:
                self._exports.drop(cluster, key)

    def unconfirmed(self, cluster: str) -> None:
        """See ``Sink``."""
        self._services.facts.doubt(cluster)
        self._addresses.doubt(cluster)
        self._identities.doubt(cluster)
        self._exports.doubt(cluster)
        self._clusters.excuse(cluster)
        self._lives_changed()

    def synced(self, cluster: str, kind: AnyKind) -> None:
        """See ``Sink``."""
        first = not self._clusters.has(cluster, kind)
        self._clusters.synced(cluster, kind)
        if kind in SERVICE_KINDS:
            self._services.synced(cluster, kind)
        elif kind is Kind.NODES or kind is Kind.IPS:
            self._addresses.confirm(cluster, kind, first=first)
            self._routes_changed = True
        elif kind is Kind.IDENTITIES:
            self._identities.sweep(cluster)
        else:
            self._exports.sweep(cluster)
        self._lives_changed()

    def overdue(self, cluster: str) -> None:
        """See ``Sink``."""
        self._clusters.excuse(cluster)
        self._lives_changed()

    def unsynced(self, cluster: str) -> None:
        """See ``Sink``: every fact stays, so there is nothing to do."""

    def drain(self, cluster: str) -> None:
        """See ``Sink``."""
        cluster_id = self._clusters.id_of(cluster)
        self._services.drain(cluster, cluster_id)
        self._addresses.drain(cluster, cluster_id)
        self._identities.drain(cluster)
        self._exports.drain(cluster)
        self._clusters.forget(cluster)
        self.on_drained(cluster, cluster_id)
        self._routes_changed = True
        self._lives_changed()

    def unreachable(self, clusters: frozenset[str]) -> None:
        """Clusters whose data plane does not answer: their backends are used last."""
        self._services.unreachable(clusters)
        self._turns.wake()

    def _removed(self, backends: Sequence[BackendEntry]) -> None:
        self.on_removed(BackendValue.unpack(entry.value) for entry in backends)

    def _lives_changed(self) -> None:
        """Somebody may be waited for no more, or be known to be nobody's."""
        if self._clusters.own_services and not self._pruned_services:
            self._services.prune()
            self._pruned_services = True
        if self._clusters.own_services:
            self._services.forget_unconfigured()
        self._services.settle()
        self._addresses.prune()
        inherited = self._clusters.names_of(self._services.inherited)
        self._strange = {
            cluster: STRANGE for cluster in self._clusters.strange() if cluster not in inherited
        }
        self._turns.wake()

    # -- the writer -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write until cancelled. What is in the maps stays there."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._services.programs.writer.run(), name="tables")
            tasks.create_task(self._turns.run(), name="writer")

    def retry(self, now: float) -> float | None:
        """See ``turns.Work``."""
        return self._services.retry(now)

    def rested(self) -> None:
        """See ``turns.Work``."""
        if self.idle:
            self.on_written()

    def work(self, clock: Callable[[], float], budget: float) -> bool:
        """See ``turns.Work``: everything in the right order, at least one service."""
        addresses, services = self._addresses, self._services
        busy = bool(addresses.puts)
        if addresses.puts and addresses.review():
            self._routes_changed = True  # and stays so if a write fails before it is told
        self._hold()
        if addresses.puts:
            addresses.write()
        self._tell()
        if services.dirty and not addresses.judging and self.routed():
            end = clock() + budget
            services.round(clock(), enough=lambda: clock() >= end)
            return True
        if addresses.drops and services.idle:
            addresses.remove()
            return True
        return busy

    def _hold(self) -> None:
        """Services do not lead to clusters that are held out, or to which no way is known yet."""
        strange, overlapping = self._strange, self._addresses.held
        if self._holding != (strange, overlapping):
            self._holding = (strange, overlapping)
            self._services.hold({**strange, **overlapping})

    def _tell(self) -> None:
        if self._routes_changed:
            self._routes_changed = False
            self.on_routes()

    def wake(self) -> None:
        """Something that was waited for has come: look again."""
        self._turns.wake()

    def rewrite(self, services: Iterable[str]) -> None:
        """Write these services anew, whatever the maps are thought to hold."""
        self._services.rewrite(services)
        self._turns.wake()

    def settle(self) -> None:
        """Everything that can be written now, without a loop: for tools and tests."""
        while self.work(lambda: 0.0, 0) or self._services.programs.writer.busy:
            self._services.programs.writer.settle()

    @property
    def written(self) -> bool:
        """Whether everything is in the maps, but for tables and what must come after them."""
        return not (self._addresses.puts or self._services.dirty)

    @property
    def idle(self) -> bool:
        """Whether the maps are as the facts say, but for what waits or failed."""
        return not (self._addresses.puts or self._addresses.drops) and self._services.idle

    # -- asked ------------------------------------------------------------------------------------

    @property
    def policies(self) -> Policies:
        """What the own services ask for: an earlier run's can be restored before the first fact."""
        return self._services.facts.policies

    def routes(self) -> Mapping[str, Route]:
        """Where the pods of other clusters are, by prefix."""
        return self._addresses.routes

    def take_routes(self) -> Iterator[tuple[str, Route | None]]:
        """Routes that are others than when this was asked last, by prefix; None: gone."""
        return self._addresses.reach.take()

    def take_overlays(self) -> Iterator[tuple[str, str, str]]:
        """Nodes of other clusters with another address inside the mesh than when this was asked
        last: cluster, node, and the address, empty when there is none."""
        return self._addresses.nodes.take_reached()

    @property
    def own_ranges(self) -> OwnRanges:
        """Ranges of the own cluster's pods."""
        return self._addresses.nodes.own

    def overlay_addresses(self) -> tuple[str, ...]:
        """This node's own addresses inside the mesh."""
        own = self._addresses.nodes.known.of(self._me.cluster).get(self._me.node)
        return own.overlay if own is not None else ()

    def unused(self, cluster: str) -> bool:
        """Whether no service leads to the cluster, because too little is known of it yet."""
        return cluster in self._strange

    def services(self) -> list[ServiceStatus]:
        """Every frontend with all its candidates."""
        return self._picture.services()

    def nodes(self) -> list[NodeStatus]:
        """Every node of the mesh."""
        return self._picture.nodes()

    def identity(self, number: int) -> IdentityStatus | None:
        """An identity of the mesh, if its cluster has told of it."""
        cluster = self._clusters.name_of(cluster_of(number, self._me.max_clusters))
        labels = self._identities.of(cluster).get(str(number))
        if labels is None:
            return None
        found = Identity(number, labels)
        return IdentityStatus(id=number, cluster=cluster, labels=found.label_list())

    def identities(self) -> list[IdentityStatus]:
        """Every identity of the mesh."""
        return [
            IdentityStatus(id=int(key), cluster=cluster, labels=Identity(0, labels).label_list())
            for cluster, key, labels in self._identities.items()
        ]

    def count(self, cluster: str, kind: AnyKind) -> int:
        """How many facts of a kind a cluster has told."""
        if kind is Kind.IPS:
            return self._addresses.count(cluster)
        if kind is Kind.NODES:
            return self._addresses.nodes.known.count(cluster)
        if kind is Kind.IDENTITIES:
            return self._identities.count(cluster)
        if kind is Kind.SERVICE_EXPORTS:
            return self._exports.count(cluster)
        if kind is Kind.ENDPOINT_SLICES:
            return self._services.facts.count_slices(cluster)
        return self._services.facts.count(cluster)

    def counts(self) -> dict[str, Count]:
        """Entries that each map should have, and its room."""
        entries = self._addresses.entries() | self._services.programs.entries()
        return {
            getattr(self._maps, name).name: Count(
                entries=number, max_entries=getattr(self._maps, name).max_entries
            )
            for name, number in entries.items()
        }

    @property
    def map_writes(self) -> int:
        """Entries written and removed since the start."""
        return self._addresses.writes + self._services.programs.writer.writes

    @property
    def refusals(self) -> list[Refusal]:
        """Objects that are refused at present, and why."""
        return self._picture.refusals()

    def trouble(self) -> list[str]:
        """What keeps the maps from being as the facts say, in full sentences."""
        found = [self._turns.trouble] if self._turns.trouble else []
        return [*found, *self._picture.trouble()]
