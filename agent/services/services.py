"""Services: from the facts of every cluster to what their frontends should be.

The unit of work is one service. A change names the services it touches; each is merged anew from
present facts and its frontends are compared with what the maps hold (``programs``). What fails is
tried again, alone, and stops no other service.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

from agent.clusters import Clusters
from agent.facts import AnyKind, Change, LocalKind, Me
from agent.ownership import Ownership
from agent.services import merge
from agent.services.ages import Ages
from agent.services.compose import frontends
from agent.services.ids import NoIdLeft
from agent.services.merge import Verdict
from agent.services.plan import Change as Turn
from agent.services.program import Place
from agent.services.programs import Programs
from agent.services.remnants import Remnants
from agent.services.retries import Retries
from agent.services.state import ServiceFacts
from agent.services.writer import Round
from bpf.datapath import Maps
from bpf.errors import BpfError
from clustermesh.addresses import spelled
from clustermesh.keys import Kind
from clustermesh.local import Frontend, LocalService

MOST_AT_ONCE: Final = 256
"""Services in one round."""

NOBODY: Final = "nobody "
"""Begins the names under which frontends that no service wants are removed, some at a time."""


class Services:
    """Owner of all that is known about services."""

    def __init__(
        self,
        maps: Maps,
        me: Me,
        clusters: Clusters,
        *,
        every_service: bool,
        table_size: int,
        retry_after: float,
    ) -> None:
        self.facts = ServiceFacts(me)
        self.ages = Ages()
        self.programs = Programs(maps, table_size=table_size)
        self.programs.on_end = self._ended
        self.retries = Retries(retry_after)
        self.on_landed: Callable[[], None] = lambda: None
        """Called when a round has ended, so that what waited for it can go on."""
        self.held: Mapping[str, str] = {}
        """Clusters whose offers are not used, and why."""
        self.inherited: set[int] = set()
        """Ids of clusters that the maps led to when we came: there is a way to them."""
        self._clusters = clusters
        self._every_service = every_service
        self._dirty: dict[str, None] = {}
        self._deferred: dict[str, None] = {}
        """Dirty ones that wait for a round of theirs to finish."""
        self._waiting: set[str] = set()
        """Services without backends are not in the maps before everybody has told theirs: whatever
        else serves them does, and nobody is sent to what is gone."""
        self._told = (False, False)
        """Whether the own cluster, and whether everybody, had told all services."""
        self._unwanted: dict[str, set[Place]] = {}
        """By service: frontends that it wants no more and that are still in the maps."""
        self._ownership: Ownership[Place] = Ownership()
        self._remnants = Remnants()
        self._unreachable: frozenset[str] = frozenset()
        self._now = 0.0

    # -- told ----------------------------------------------------------------------------------

    def adopt(self) -> None:
        """Take over what the maps hold, before the first fact."""
        self._remnants = Remnants.of(self.programs.adopt())
        self.inherited = set(self._remnants.cluster_ids)

    def apply(self, cluster: str, kind: AnyKind, changes: Sequence[Change]) -> None:
        """New facts."""
        if kind is LocalKind.SERVICES:
            self._claim(self.ages.changed(cluster, self.facts.apply_local(changes)))
        elif kind is Kind.SERVICES:
            self._touch(self.ages.changed(cluster, self.facts.apply_services(cluster, changes)))
        elif kind is Kind.ENDPOINT_SLICES:
            self._touch(self.ages.changed(cluster, self.facts.apply_slices(cluster, changes)))

    def synced(self, cluster: str, kind: AnyKind) -> None:
        """A full list has been told; ``clusters`` knows already."""
        touched = self.facts.confirm(cluster, kind)
        if kind is LocalKind.SERVICES:
            self._claim(touched)
        self._touch(touched)
        self._forget_remnants(self._clusters.id_of(cluster))
        self.settle()

    def _claim(self, names: Iterable[str]) -> None:
        """Local services have changed: who has which frontend now?"""
        for name in names:
            wanted = self._wanted(self.facts.local(name)).keys()
            if gone := self._ownership.claims(name) - wanted:
                self._unwanted.setdefault(name, set()).update(gone)
            self._touch((name, *self._ownership.claim(name, wanted)))

    def settle(self) -> None:
        """Perhaps nothing is missing any more for what has been waiting."""
        told = (self._clusters.own_services, self._clusters.settled)
        if told != self._told:
            self._told = told
            self._touch(self._waiting)
            self._waiting.clear()

    def drain(self, cluster: str, cluster_id: int) -> None:
        """Nothing of the cluster counts any more."""
        self.inherited.discard(cluster_id)
        self._touch(self.facts.drain(cluster))
        self.ages.drain(cluster)
        self._forget_remnants(cluster_id)

    def forget_unconfigured(self) -> None:
        """What an earlier run left of clusters that are not configured is not used."""
        for cluster_id in tuple(self._remnants.cluster_ids):
            if not self._clusters.configured(cluster_id):
                self._forget_remnants(cluster_id)

    def _forget_remnants(self, cluster_id: int) -> None:
        owners = (self._ownership.owner(place) for place in self._remnants.forget(cluster_id))
        self._touch(owner for owner in owners if owner is not None)

    def hold(self, held: Mapping[str, str]) -> None:
        """The clusters whose offers are not used now, and why."""
        changed = held.keys() ^ self.held.keys()
        self.held = held
        for cluster in changed:
            self._touch(self.facts.with_offers_of(cluster))

    def unreachable(self, clusters: frozenset[str]) -> None:
        """Clusters that do not answer probes: used only where nothing else is left."""
        for cluster in clusters ^ self._unreachable:
            self._touch(self.facts.with_offers_of(cluster))
        self._unreachable = clusters

    def prune(self) -> None:
        """Let go of what an earlier run left and no service wants, after all own services came."""
        owned = self._ownership.owner
        places = self.programs.unclaimed(lambda place: owned(place) is not None)
        for start in range(0, len(places), MOST_AT_ONCE):
            name = f"{NOBODY}{start}"
            self._unwanted[name] = set(places[start : start + MOST_AT_ONCE])
            self._touch([name])
        self.programs.sweep()

    def rewrite(self, names: Iterable[str]) -> None:
        """Write these services anew, whatever the maps are thought to hold."""
        for name in names:
            self.programs.distrust(self._ownership.claims(name))
            self._touch([name])

    def _touch(self, names: Iterable[str]) -> None:
        self._dirty.update(dict.fromkeys(names))

    # -- the rounds ------------------------------------------------------------------------------

    @property
    def dirty(self) -> bool:
        """Whether there is something that can be done now."""
        return bool(self._dirty)

    @property
    def idle(self) -> bool:
        """Whether the maps are as the facts say, but for what waits or failed."""
        return not (self._dirty or self._deferred or self.programs.writer.busy)

    def retry(self, now: float) -> float | None:
        """Services whose time has come are dirty again; when to ask the next time."""
        self._touch(self.retries.due(now))
        return self.retries.next_time()

    def round(self, now: float, *, enough: Callable[[], bool]) -> None:
        """Bring services in line with the facts until ``enough``; at least one."""
        self._now = now
        names: list[str] = []
        turns: list[Turn] = []
        for name in list(islice(self._dirty, MOST_AT_ONCE)):
            alone = self.retries.alone(name)
            if alone and names:
                break
            del self._dirty[name]
            if self._in_flight(name):
                self._deferred[name] = None
                continue
            if self._add_turns(name, turns):
                names.append(name)
            if alone or enough():
                break
        if not self._dirty:
            self._dirty.clear()  # a dict that was large is slow to walk until it is emptied at once
        if turns:
            self.programs.begin(tuple(names), turns)
        else:
            self.retries.succeeded(names)

    def _in_flight(self, name: str) -> bool:
        unwanted: Iterable[Place] = self._unwanted.get(name, ())
        return self.programs.in_flight(self._ownership.claims(name).union(unwanted))

    def _add_turns(self, name: str, turns: list[Turn]) -> bool:
        """What changes for the frontends of one service; whether all of it could be said."""
        for place in sorted(self._unwanted.pop(name, ())):
            if self._ownership.owner(place) is None:
                _add(turns, self.programs.withdraw(place, name))
        service = self.facts.local(name)
        if service is None:
            return True
        try:
            for place, frontend in sorted(self._wanted(service).items()):
                if self._ownership.owner(place) == name:
                    _add(turns, self._turn(name, service, place, frontend))
        except (NoIdLeft, ValueError) as error:
            self.retries.failed(name, str(error), self._now)
            return False
        return True

    def _wanted(self, service: LocalService | None) -> dict[Place, Frontend]:
        if service is None or not self.serves(service):
            return {}
        return self.frontends(service)

    def _turn(
        self, name: str, service: LocalService, place: Place, frontend: Frontend
    ) -> Turn | None:
        settled = self._clusters.settled if service.is_global else self._clusters.own_services
        if not settled and self.programs.is_adopted(place):
            self._waiting.add(name)
            return None
        verdicts = self.verdicts(name, service, place, frontend)
        if not settled and not any(verdict.weight for verdict in verdicts):
            self._waiting.add(name)
            return self.programs.withdraw(place, name)
        return self.programs.change(place, name, service, frontend, verdicts)

    def verdicts(
        self, name: str, service: LocalService, place: Place, frontend: Frontend
    ) -> list[Verdict]:
        """Every backend that matches the frontend, and whether it is used."""
        offers = self._remnants.beside(
            self.facts.offers(name),
            place,
            self._clusters,
            remembered=lambda cluster: self.facts.is_remembered(cluster, name),
        )
        offers = [offer for offer in offers if offer.cluster not in self.held]
        found = merge.candidates(frontend, place.proto, len(place.address), offers)
        consumer = self.facts.consumer(service, name, frontend, place.scope)
        return merge.choose(found, consumer, self._unreachable)

    def _ended(self, round_: Round, error: BpfError | None) -> None:
        """A round is over. What failed in company must show that it can be written alone."""
        if error is None:
            self.retries.succeeded(round_.names)
        else:
            self._failed(round_, str(error))
        deferred, self._deferred = self._deferred, {}
        self._touch(deferred)
        self.on_landed()

    def _failed(self, round_: Round, reason: str) -> None:
        for turn in round_.turns:
            if turn.new is None:
                self._unwanted.setdefault(turn.service, set()).add(turn.place)
        if len(round_.names) == 1:
            self.retries.failed(round_.names[0], reason, self._now)
        else:
            self.retries.isolate(round_.names)
            self._touch(round_.names)

    # -- asked ------------------------------------------------------------------------------------

    def frontends(self, service: LocalService) -> dict[Place, Frontend]:
        """Where a service that we serve is reached: in place of kube-proxy, at every address."""
        return frontends(service, outside=self._every_service)

    def serves(self, service: LocalService) -> bool:
        """Whether the service's frontends are ours to write."""
        return service.is_global or self._every_service

    def rivalries(self) -> Iterator[tuple[str, str]]:
        """Services that do not get a frontend, because another one has it, with the reason."""
        for place, names in self._ownership.rivals().items():
            owner = self._ownership.owner(place)
            for name in names:
                yield name, f"{spelled(place.address)} port {place.port} belongs to {owner}"


def _add(turns: list[Turn], turn: Turn | None) -> None:
    if turn is not None:
        turns.append(turn)
