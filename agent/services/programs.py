"""Programs: what the load balancer's maps hold for every frontend, and how that changes.

One change of one frontend is a turn; turns that are planned together are a round. From a turn's
beginning until its round has ended the frontend is in flight, and nobody else may touch it. A
backend stays in the maps as long as any program may refer to it, also one that a failed round left
in part.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

import msgspec

from agent.services.adopt import Adopted, Keys, adopt, with_shares
from agent.services.backends import BackendKey, Backends
from agent.services.compose import compose
from agent.services.ids import Ids
from agent.services.merge import Backend, Verdict
from agent.services.plan import BackendEntry, Change, Drop, bury, plan
from agent.services.program import Place, Program, match_key
from agent.services.writer import Round, Writer
from bpf.datapath import Maps
from bpf.errors import BpfError
from bpf.layout_lb import SourceRangeKey, unpack_rev_nat
from clustermesh.local import Frontend, LocalService
from clustermesh.process import describe

LAST_ID: Final = 65_534
"""Of a frontend; 65535 triggers the roll-over (contract datapath 5.4)."""

_MAPS: Final = (
    *("services4", "services6", "reverse_nat4", "reverse_nat6", "tables4", "tables6"),
    *("source_ranges4", "source_ranges6", "affinity_match"),
)


class Programs:
    """Owner of the service maps."""

    def __init__(self, maps: Maps, *, table_size: int) -> None:
        self.writer = Writer(maps, self)
        self.on_end: Callable[[Round, BpfError | None], None] = lambda *_: None
        """Called when a round has ended, well or not."""
        self.on_buried: Callable[[Sequence[BackendEntry]], None] = lambda _: None
        """Called with backends that are in the maps no more."""
        self._maps = maps
        self._table_size = table_size
        self._programs: dict[Place, Program] = {}
        self._adopted: set[Place] = set()
        """Frontends as an earlier run left them, not looked at yet in this one."""
        self._debts: dict[Place, list[Program]] = {}
        """Programs that a failed round may have left in part."""
        self._flying: set[Place] = set()
        self._debris: Keys = {}
        self._ids: Ids[Place] = Ids(1, LAST_ID)
        self._backends = Backends()

    def adopt(self) -> Adopted:
        """Take over what the maps hold."""
        found = adopt(self._maps)
        self._programs = dict(found.programs)
        self._adopted = set(found.programs)
        self._debris = found.debris
        known = {place: program.id for place, program in found.programs.items() if program.id}
        self._ids.adopt(known, taken=_numbers(found.debris))
        self._backends.adopt(found.backends, found.programs.values())
        return found

    def is_adopted(self, place: Place) -> bool:
        """Whether the frontend is as an earlier run left it."""
        return place in self._adopted

    def in_flight(self, places: Collection[Place]) -> bool:
        """Whether a round with any of these has not ended."""
        return bool(self._flying) and not self._flying.isdisjoint(places)

    # -- turns --------------------------------------------------------------------------------

    def change(
        self,
        place: Place,
        name: str,
        service: LocalService,
        frontend: Frontend,
        verdicts: Sequence[Verdict],
    ) -> Change | None:
        """The turn that makes the frontend what a service wants; None when it is that.

        Raises ``NoIdLeft``, and ``ValueError`` for more backends than a frontend can have.
        """
        old = self._program_at(place)
        number = self._ids.of(place)
        new, chosen = compose(number, service, frontend, verdicts, self._id_of, self._table_size)
        if new == old:
            return None
        self._backends.retain(new)
        self._programs[place] = new
        self._flying.add(place)
        turn = Change(place, old, new, service=name)
        return turn._replace(table=chosen.table()) if turn.needs_table else turn

    def withdraw(self, place: Place, name: str) -> Change | None:
        """The turn that removes the frontend; None when it is not there."""
        old = self._programs.pop(place, None)
        self._adopted.discard(place)
        if old is None:
            self._release_id(place)
            return None
        self._flying.add(place)
        return Change(place, old, None, service=name)

    def begin(self, names: tuple[str, ...], turns: Sequence[Change]) -> None:
        """Write a round of turns for these services."""
        programs = (program for turn in turns for program in (turn.old, turn.new))
        named = {number for program in programs if program for number in program.backends}
        try:
            fresh = self._backends.fresh(named)
            steps = list(plan(turns, fresh))
        except Exception as error:  # noqa: BLE001  # a service that no map can hold stops no other
            self._backends.distrust(BackendEntry(number, b"") for number in named)
            self.failed(Round(names, turns, (), ()), BpfError(describe(error)))
            return
        self.writer.begin(Round(names, turns, fresh, steps))

    def distrust(self, places: Iterable[Place]) -> None:
        """The maps may not hold what we think: the next turns write all of these frontends."""
        for place in places:
            program = self._programs.get(place)
            if program is not None:
                self._programs[place] = msgspec.structs.replace(program, whole=False)
                self._backends.distrust(BackendEntry(it, b"") for it in program.backends)

    def _program_at(self, place: Place) -> Program | None:
        """What the maps hold, looked at in full the first time."""
        program = self._programs.get(place)
        if program is not None and place in self._adopted:
            family = "6" if len(place.address) == 16 else "4"
            program = self._programs[place] = with_shares(program, self._maps, family=family)
        self._adopted.discard(place)
        return program

    def _id_of(self, backend: Backend) -> int:
        return self._backends.id_of(_key(backend))

    def _release_id(self, place: Place) -> None:
        number = self._ids.release(place)
        if number is not None:
            self._ids.reuse([number])

    # -- how rounds end -------------------------------------------------------------------------

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
        self._land(round_, None)

    def failed(self, round_: Round, error: BpfError) -> None:
        """They are somewhere in between: both programs may be there in part."""
        self._backends.distrust(round_.fresh)
        for turn in round_.turns:
            if turn.new is not None and turn.old is not None:
                self._debts.setdefault(turn.place, []).append(turn.old)
            self._programs[turn.place] = turn.damaged()
        self._land(round_, error)

    def _land(self, round_: Round, error: BpfError | None) -> None:
        self._flying.difference_update(turn.place for turn in round_.turns)
        self.on_end(round_, error)

    def _bury(self, ids: Iterable[int]) -> None:
        ids = list(ids)
        orphans = self._backends.orphans(ids)
        changed = self._backends.fresh(ids)
        try:
            self.writer.bury(list(bury(orphans, changed)))
        except BpfError:
            self._backends.distrust(changed)
            return  # they stay as garbage, with their ids taken, until the next start
        self._backends.buried(orphans)
        if orphans:
            self.on_buried(orphans)

    # -- what an earlier run left -----------------------------------------------------------------

    def unclaimed(self, owned: Callable[[Place], bool]) -> list[Place]:
        """Frontends of an earlier run that nobody owns."""
        return sorted(place for place in self._adopted if not owned(place))

    def sweep(self) -> None:
        """Remove entries that belong to no frontend, and backends that nothing uses."""
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

    # -- asked ---------------------------------------------------------------------------------

    def id_at(self, place: Place) -> int:
        """The id of a frontend in the maps, 0 when it is not there."""
        program = self._programs.get(place)
        return program.id if program is not None else 0

    def backend_id(self, backend: Backend) -> int:
        """The id of a backend in the maps, 0 when it is not there."""
        return self._backends.known_id(_key(backend))

    def entries(self) -> dict[str, int]:
        """By name in ``bpf.datapath.Maps``: entries that the map should have."""
        found = dict.fromkeys(_MAPS, 0)
        for place, program in self._programs.items():
            family = "6" if len(place.address) == 16 else "4"
            found["services" + family] += 1 + len(program.backends)
            found["reverse_nat" + family] += 1
            found["tables" + family] += bool(program.shares)
            found["source_ranges" + family] += len(program.ranges)
            found["affinity_match"] += len(program.matches)
        return found | self._backends.entries()


def _numbers(debris: Keys) -> set[int]:
    """Ids under which there may still be something: they are not given out in this life."""
    return {
        SourceRangeKey.unpack(key).rev_nat if "ranges" in name else unpack_rev_nat(key)
        for name, keys in debris.items()
        if name != "affinity_match"
        for key in keys
    }


def _key(backend: Backend) -> BackendKey:
    return BackendKey(backend.address, backend.port, backend.proto, backend.cluster_id)
