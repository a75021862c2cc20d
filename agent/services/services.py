"""Services: from the facts of every cluster to entries in the load balancer's maps.

The unit of work is one service. A change names the services it touches; each is merged anew from
present facts, its frontends are compared with what the maps hold, and the difference is written in
a safe order. What fails is tried again, alone, and stops no other service.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

from agent.clusters import Clusters
from agent.facts import AnyKind, Change, LocalKind, Me
from agent.ownership import Ownership
from agent.services import merge
from agent.services.adopt import Keys, adopt, with_shares
from agent.services.backends import BackendKey, Backends
from agent.services.compose import compose, frontends
from agent.services.ids import Ids, NoIdLeft
from agent.services.merge import Backend, Verdict
from agent.services.plan import BackendEntry, Drop, bury, plan
from agent.services.plan import Change as Turn
from agent.services.program import Place, Program, match_key
from agent.services.remnants import Remnants
from agent.services.retries import Retries
from agent.services.state import ServiceFacts
from agent.services.writer import Round, Writer
from bpf.datapath import Maps
from bpf.errors import BpfError
from bpf.layout_lb import unpack_rev_nat
from clustermesh.addresses import spelled
from clustermesh.keys import Kind
from clustermesh.local import Frontend, LocalService

LAST_ID: Final = 65_534
"""Of a frontend; 65535 triggers the roll-over (contract datapath 5.4)."""

MOST_AT_ONCE: Final = 256
"""Services in one round."""

_MAPS: Final = (
    *("services4", "services6", "reverse_nat4", "reverse_nat6", "tables4", "tables6"),
    "affinity_match",
)


class Services:
    """Owner of the service maps and of all that is known about services."""

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
        self.writer = Writer(maps, self)
        self.retries = Retries(retry_after)
        self.on_landed: Callable[[], None] = lambda: None
        """Called when a round has ended, so that what waited for it can go on."""
        self.on_buried: Callable[[Sequence[BackendEntry]], None] = lambda _: None
        """Called with backends that are in the maps no more."""
        self.held: Mapping[str, str] = {}
        """Clusters whose offers are not used, and why."""
        self._maps = maps
        self._me = me
        self._clusters = clusters
        self._every_service = every_service
        self._table_size = table_size
        self._dirty: dict[str, None] = {}
        self._deferred: dict[str, None] = {}
        """Dirty ones that wait for a round of theirs to finish."""
        self._waiting: set[str] = set()
        """Services that are not written before everybody has told theirs."""
        self._told = (False, False)
        """Whether the own cluster, and whether everybody, had told all services."""
        self._programs: dict[Place, Program] = {}
        self._debts: dict[Place, list[Program]] = {}
        """Programs that a failed round may have left in part."""
        self._unwithdrawn: dict[str, set[Place]] = {}
        """By service: frontends that it wants no more and that are still in the maps."""
        self._adopted: set[Place] = set()
        """Frontends as an earlier run left them, not looked at yet in this one."""
        self._strangers: list[Place] = []
        """Those that no service wants."""
        self._flying: set[Place] = set()
        """Frontends of rounds that are not finished."""
        self._ownership: Ownership[Place] = Ownership()
        self._remnants = Remnants()
        self.inherited: set[int] = set()
        """Ids of clusters that the maps led to when we came: there is a way to them."""
        self._debris: Keys = {}
        self._ids: Ids[Place] = Ids(1, LAST_ID)
        self._backends = Backends()
        self._unreachable: frozenset[str] = frozenset()

    # -- told ----------------------------------------------------------------------------------

    def adopt(self) -> None:
        """Take over what the maps hold, before the first fact."""
        found = adopt(self._maps)
        self._programs = dict(found.programs)
        self._adopted = set(found.programs)
        self._debris = found.debris
        strangers = {
            unpack_rev_nat(key)
            for name, keys in found.debris.items()
            if name != "affinity_match"
            for key in keys
        }
        known = {place: program.id for place, program in found.programs.items() if program.id}
        self._ids.adopt(known, taken=strangers)
        self._backends.adopt(found.backends, found.programs.values())
        self._remnants = Remnants.of(found)
        self.inherited = set(self._remnants.cluster_ids)

    def apply(self, cluster: str, kind: AnyKind, changes: Sequence[Change]) -> None:
        """New facts."""
        if kind is LocalKind.SERVICES:
            self._claim(self.facts.apply_local(changes))
        elif kind is Kind.SERVICES:
            self._touch(self.facts.apply_services(cluster, changes))
        elif kind is Kind.ENDPOINT_SLICES:
            self._touch(self.facts.apply_slices(cluster, changes))

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
                self._unwithdrawn.setdefault(name, set()).update(gone)
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

    def _touch(self, names: Iterable[str]) -> None:
        self._dirty.update(dict.fromkeys(names))

    # -- the rounds ------------------------------------------------------------------------------

    @property
    def dirty(self) -> bool:
        """Whether there is something that can be done now."""
        return bool(self._dirty or self._strangers)

    @property
    def idle(self) -> bool:
        """Whether the maps are as the facts say, but for what waits or failed."""
        return not (self.dirty or self._deferred or self.writer.busy)

    def retry(self, now: float) -> float | None:
        """Services whose time has come are dirty again; when to ask the next time."""
        self._touch(self.retries.due(now))
        return self.retries.next_time()

    def round(self, now: float, *, enough: Callable[[], bool]) -> None:
        """Bring services in line with the facts until ``enough``; at least one."""
        names: list[str] = []
        turns = self._fly(self._withdraw_strangers())
        for name in list(islice(self._dirty, MOST_AT_ONCE)):
            alone = self.retries.alone(name)
            if alone and names:
                break
            del self._dirty[name]
            if self._is_flying(name):
                self._deferred[name] = None
                continue
            names.append(name)
            turns += self._fly(self._turns(name, now))
            if alone or enough():
                break
        self._begin(tuple(names), turns, now)

    def _begin(self, names: tuple[str, ...], turns: Sequence[Turn], now: float) -> None:
        self._now = now
        if not turns:
            self.retries.succeeded(names)
            return
        touched = {
            number
            for turn in turns
            for program in (turn.old, turn.new)
            if program is not None
            for number in program.backends
        }
        fresh = self._backends.fresh(touched)
        self.writer.begin(Round(names, turns, fresh, list(plan(turns, fresh))))

    def _fly(self, turns: list[Turn]) -> list[Turn]:
        """From now on nobody else may touch these frontends, until their round has ended."""
        self._flying.update(turn.place for turn in turns)
        return turns

    def _is_flying(self, name: str) -> bool:
        if not self._flying:
            return False
        places = self._ownership.claims(name) | self._unwithdrawn.get(name, frozenset())
        return not self._flying.isdisjoint(places)

    def _turns(self, name: str, now: float) -> list[Turn]:
        """What changes for the frontends of one service."""
        service = self.facts.local(name)
        wanted = self._wanted(service)
        gone = sorted(self._unwithdrawn.pop(name, ()))
        turns = [self._withdraw(name, place) for place in gone]
        try:
            for place, frontend in sorted(wanted.items()):
                if service is not None and self._ownership.owner(place) == name:
                    turns.append(self._turn(name, service, place, frontend))
        except (NoIdLeft, ValueError) as error:
            self.retries.failed(name, str(error), now)
        return [turn for turn in turns if turn is not None]

    def _wanted(self, service: LocalService | None) -> dict[Place, Frontend]:
        if service is None or not self.serves(service):
            return {}
        return frontends(service)

    def _withdraw(self, name: str, place: Place) -> Turn | None:
        """The frontend goes, unless another service has it now."""
        if self._ownership.owner(place) is not None:
            return None
        old = self._programs.pop(place, None)
        if old is None:
            self._release_id(place)
            return None
        return Turn(place, old, None, service=name)

    def _release_id(self, place: Place) -> None:
        number = self._ids.release(place)
        if number is not None:
            self._ids.reuse([number])

    def _turn(
        self, name: str, service: LocalService, place: Place, frontend: Frontend
    ) -> Turn | None:
        settled = self._clusters.settled if service.is_global else self._clusters.own_services
        if place in self._adopted and not settled:
            self._waiting.add(name)
            return None
        verdicts = self.verdicts(name, service, place, frontend)
        if not settled and not any(verdict.weight for verdict in verdicts):
            self._waiting.add(name)
            return None
        old = self._program_at(place)
        number = self._ids.of(place)
        new, chosen = compose(number, service, verdicts, self._id_of, self._table_size)
        if new == old:
            return None
        self._backends.retain(new)
        self._programs[place] = new
        turn = Turn(place, old, new, service=name)
        return turn._replace(table=chosen.table()) if turn.needs_table else turn

    def _program_at(self, place: Place) -> Program | None:
        """What the maps hold, looked at in full the first time."""
        program = self._programs.get(place)
        if place in self._adopted:
            self._adopted.discard(place)
            family = "6" if len(place.address) == 16 else "4"
            program = with_shares(self._programs[place], self._maps, family=family)
            self._programs[place] = program
        return program

    def _id_of(self, backend: Backend) -> int:
        return self._backends.id_of(_key(backend))

    def verdicts(
        self, name: str, service: LocalService, place: Place, frontend: Frontend
    ) -> list[Verdict]:
        """Every backend that matches the frontend, and whether it is used."""
        offers = list(self.facts.offers(name))
        offers += self._remnants.at(place, self._clusters)
        offers = [offer for offer in offers if offer.cluster not in self.held]
        found = merge.candidates(frontend, place.proto, len(place.address), offers)
        return merge.choose(found, self.facts.consumer(service, name), self._unreachable)

    # -- asked ------------------------------------------------------------------------------------

    def serves(self, service: LocalService) -> bool:
        """Whether the service's frontends are ours to write."""
        return service.is_global or self._every_service

    def id_at(self, place: Place) -> int:
        """The id of a frontend in the maps, 0 when it is not there."""
        program = self._programs.get(place)
        return program.id if program is not None else 0

    def backend_id(self, backend: Backend) -> int:
        """The id of a backend in the maps, 0 when it is not there."""
        return self._backends.known_id(_key(backend))

    def rivalries(self) -> Iterator[tuple[str, str]]:
        """Services that do not get a frontend, because another one has it, with the reason."""
        for place, names in self._ownership.rivals().items():
            owner = self._ownership.owner(place)
            for name in names:
                yield name, f"{spelled(place.address)} port {place.port} belongs to {owner}"

    def entries(self) -> dict[str, int]:
        """By name in ``bpf.datapath.Maps``: entries that the map should have."""
        found = dict.fromkeys(_MAPS, 0)
        for place, program in self._programs.items():
            family = "6" if len(place.address) == 16 else "4"
            found["services" + family] += 1 + len(program.backends)
            found["reverse_nat" + family] += 1
            found["tables" + family] += bool(program.shares)
            found["affinity_match"] += len(program.matches)
        return found | self._backends.entries()

    # -- how rounds end --------------------------------------------------------------------------

    def done(self, round_: Round) -> None:
        """The maps are as planned: what nothing uses now can go."""
        released: set[int] = set()
        for turn in round_.turns:
            for program in (turn.old, *self._debts.pop(turn.place, ())):
                if program is not None:
                    self._backends.release(program)
                    released.update(program.backends)
            if turn.new is None:
                self._release_id(turn.place)
        self._bury(released)
        self._land(round_)
        self.retries.succeeded(round_.names)

    def failed(self, round_: Round, error: BpfError) -> None:
        """They are somewhere in between: remember both, and try each service alone."""
        self._backends.distrust(round_.fresh)
        for turn in round_.turns:
            if turn.new is None:
                self._unwithdrawn.setdefault(turn.service, set()).add(turn.place)
            elif turn.old is not None:
                self._debts.setdefault(turn.place, []).append(turn.old)
            self._programs[turn.place] = turn.damaged()
        self._land(round_)
        if len(round_.names) == 1:
            self.retries.failed(round_.names[0], str(error), self._now)
        else:
            self.retries.isolate(round_.names)
            self._touch(round_.names)

    def _land(self, round_: Round) -> None:
        self._flying.difference_update(turn.place for turn in round_.turns)
        deferred, self._deferred = self._deferred, {}
        self._touch(deferred)
        self.on_landed()

    def _bury(self, ids: Iterable[int]) -> None:
        orphans = self._backends.orphans(ids)
        try:
            self.writer.bury(list(bury(orphans)))
        except BpfError:
            return  # they stay as garbage, with their ids taken, until the next start
        self._backends.buried(orphans)
        if orphans:
            self.on_buried(orphans)

    # -- pruning ---------------------------------------------------------------------------------

    def prune(self) -> None:
        """Let go of what an earlier run left and no service wants, after all own services came."""
        self._strangers = [p for p in self._adopted if self._ownership.owner(p) is None]
        self._adopted.difference_update(self._strangers)
        debris, self._debris = self._debris, {}
        if matches := debris.pop("affinity_match", []):
            debris["affinity_match"] = sorted(set(matches) - self._matches())
        steps = [Drop(name, keys) for name, keys in debris.items() if keys]
        if steps:
            self.writer.begin(Round((), (), (), steps))
        self._bury(self._backends.unused())

    def _matches(self) -> set[bytes]:
        programs = self._programs.values()
        return {match_key(backend, program) for program in programs for backend in program.matches}

    def _withdraw_strangers(self) -> list[Turn]:
        some = self._strangers[-MOST_AT_ONCE:]
        del self._strangers[-MOST_AT_ONCE:]
        turns = (self._withdraw("", place) for place in some)
        return [turn for turn in turns if turn is not None]


def _key(backend: Backend) -> BackendKey:
    return BackendKey(backend.address, backend.port, backend.proto, backend.cluster_id)
