"""The load balancer's maps of one family against the frontends that must be in them [pure].

Ids of frontends and backends are the node's own choice: they are taken from the maps, and what is
compared is what they stand for.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from struct import pack
from typing import Final

from agent.audit import placement, ranges
from agent.audit.compare import Drift, drift
from agent.audit.frontends import At, Frontends, Wanted
from agent.audit.observed import (
    ACTIVE,
    MATCHES,
    QUARANTINED,
    TERMINATING,
    Backend,
    Master,
    ServiceMaps,
    Slot,
    match,
    table,
)
from agent.audit.sharing import Endpoint
from agent.audit.words import address_words, backend_words, master_words, slot_words

Target = tuple[bytes, int, int, int]
"""Address, port, protocol and cluster: what makes a backend the same one."""

PRESENT: Final = b"\0"
"""The value of an affinity match: it says nothing (contract datapath 1.6)."""
LENGTHS: Final = {"4": 4, "6": 16}


class Balance:
    """One comparison; ``matches`` and ``excused`` are known after ``differences`` was read."""

    def __init__(self, family: str, maps: ServiceMaps, wanted: Frontends, *, size: int) -> None:
        self.matches: set[tuple[int, int]] = set()
        """Affinity matches that must be there."""
        self._family = family
        self._maps = maps
        self._size = size
        length = LENGTHS[family]
        self._wanted = {at: it for at, it in wanted.wanted.items() if len(at.address) == length}
        self._places = wanted.places
        self._users = _users(maps)
        self.excused = {master.id for at, master in maps.masters.items() if at in wanted.places}
        """Ids of frontends that cannot be told."""

    def differences(self, *, thorough: bool) -> Iterator[Drift]:
        """All of them. ``thorough``: also the place of each backend in each table."""
        for at, wanted in self._wanted.items():
            yield from self._frontend(at, wanted, thorough=thorough)
        yield from self._backends()
        yield from self._strangers()

    # -- one frontend -----------------------------------------------------------------------------

    def _frontend(self, at: At, wanted: Wanted, *, thorough: bool) -> Iterator[Drift]:
        master = self._maps.masters.get(at)
        number = self._id_at(at)
        right = Master(
            wanted.timeout, len(wanted.serving), number, wanted.flags, len(wanted.parked)
        )
        if master != right:
            yield self._services(at, 0, master_words(right), master_words(master), wanted.service)
        yield from self._slots(at, wanted, number)
        if master is not None:
            yield from self._reverse_nat(at, wanted, number)
            yield from ranges.differences(self._family, self._maps.ranges, wanted, number)
            yield from self._table(wanted, number, thorough=thorough)
            yield from self._affinity(at, wanted, number)

    def _id_at(self, at: At) -> int:
        """The frontend's id; its slots know it, too."""
        slots = self._maps.slots.get(at, {}).values()
        return next((it.id for it in (self._maps.masters.get(at), *slots) if it is not None), 0)

    def _services(self, at: At, slot: int, expected: str, found: str, service: str) -> Drift:
        key = service_key(at, slot)
        name = "services" + self._family
        return drift(name, key, expected=expected, found=found, service=service)

    def _slots(self, at: At, wanted: Wanted, number: int) -> Iterator[Drift]:
        """Those that serve, then those that stand by, then those that are parked."""
        found, start = self._maps.slots.get(at, {}), 1
        for role, flags in zip(wanted.roles, (0, 0, QUARANTINED), strict=True):
            slots = range(start, start + len(role))
            there = {slot: found.get(slot) for slot in slots}
            yield from self._role(at, wanted, there, role, (number, flags))
            start += len(role)
        for slot in sorted(found.keys() - set(range(start))):
            yield self._services(at, slot, "", self._slot_words(found[slot]), wanted.service)

    def _role(
        self,
        at: At,
        wanted: Wanted,
        slots: Mapping[int, Slot | None],
        role: frozenset[Endpoint],
        marks: tuple[int, int],
    ) -> Iterator[Drift]:
        """As many slots as endpoints, in any order; ``marks``: frontend id and flags."""
        left = {target(endpoint): endpoint for endpoint in role}
        faulty = []
        for number, slot in slots.items():
            backend = self._backend(slot)
            if slot is None or backend is None or left.pop(_target(backend), None) is None:
                faulty.append(number)
            elif slot != (right := Slot(slot.backend, 0, *marks)):
                expected = slot_words(right, backend)
                yield self._services(at, number, expected, self._slot_words(slot), wanted.service)
        for number, endpoint in zip(faulty, left.values(), strict=True):
            expected = f"backend {address_words(endpoint.address, endpoint.port)}"
            found = self._slot_words(slots[number])
            yield self._services(at, number, expected, found, wanted.service)

    def _backend(self, slot: Slot | None) -> Backend | None:
        return None if slot is None else self._maps.backends.get(slot.backend)

    def _slot_words(self, slot: Slot | None) -> str:
        return slot_words(slot, self._backend(slot))

    def _reverse_nat(self, at: At, wanted: Wanted, number: int) -> Iterator[Drift]:
        found = self._maps.reverse_nat.get(number)
        if found != at.address + at.port.to_bytes(2, "big"):
            yield drift(
                "reverse_nat" + self._family,
                pack(">H", number),
                expected=address_words(at.address, at.port),
                found="" if found is None else _address(found),
                service=wanted.service,
            )

    def _affinity(self, at: At, wanted: Wanted, number: int) -> Iterator[Drift]:
        if not wanted.timeout:
            return
        slots = self._maps.slots.get(at, {})
        serving = (slots.get(slot) for slot in range(1, len(wanted.serving) + 1))
        expected = {(slot.backend, number) for slot in serving if slot is not None}
        self.matches |= expected
        for backend, _ in sorted(expected - self._maps.matches):
            key = pack("<I", backend) + pack(">HH", number, 0)
            yield drift(MATCHES, key, expected="present", service=wanted.service)

    # -- its table --------------------------------------------------------------------------------

    def _table(self, wanted: Wanted, number: int, *, thorough: bool) -> Iterator[Drift]:
        found = self._maps.tables.get(number)
        expected = self._shares(wanted) if wanted.serving else ""
        fault = "" if found is None else self._fault(wanted, table(found), thorough=thorough)
        if (found is None) != (not wanted.serving) or (expected and fault):
            yield drift(
                "tables" + self._family, pack(">H", number), expected=expected,
                found=fault or ("" if found is None else "a table"), service=wanted.service,
            )  # fmt: skip

    def _fault(self, wanted: Wanted, ids: list[int], *, thorough: bool) -> str:
        """What is wrong with a table, empty for nothing: each share is kept to within an entry."""
        if len(ids) != self._size:
            return f"a table of {len(ids)} entries"
        picks = [self._picked(number) for number in ids]
        counts, faults = Counter(picks), []
        for endpoint, share in wanted.serving.items():
            has = counts.pop(target(endpoint), 0)
            if abs(has - share * self._size) >= 1:
                faults.append(f"{address_words(endpoint.address, endpoint.port)} {has}")
        faults += [f"{_target_words(picked)} {has}" for picked, has in counts.items()]
        if faults:
            return f"entries of {', '.join(faults)}"
        if thorough and picks != self._placed(wanted):
            return "the right shares in other places than on other nodes"
        return ""

    def _picked(self, number: int) -> Target | None:
        backend = self._maps.backends.get(number)
        return None if backend is None else _target(backend)

    def _placed(self, wanted: Wanted) -> list[Target]:
        order = sorted(wanted.serving, key=lambda it: (it.address, it.port))
        names = tuple(it.address for it in order)
        if len(set(names)) < len(names):
            names = tuple(it.address + it.port.to_bytes(2, "big") for it in order)
        quotas = placement.quotas([wanted.serving[it] for it in order], self._size)
        return [target(order[which]) for which in placement.placed(names, quotas)]

    def _shares(self, wanted: Wanted) -> str:
        parts = (
            f"{address_words(it.address, it.port)} {float(share * self._size):.1f}"
            for it, share in wanted.serving.items()
        )
        return f"entries of {', '.join(parts)}"

    # -- all of them ------------------------------------------------------------------------------

    def _backends(self) -> Iterator[Drift]:
        """A backend is there for its slots; it is active as long as one of them is not parked."""
        name = "backends" + self._family
        states = _states(self._wanted.values())
        for number, backend in self._maps.backends.items():
            users = self._users.get(number, set())
            if users & self._places:
                continue
            state = states.get(_target(backend))
            right = None if state is None else backend._replace(state=state, zone=0)
            if not users:
                right = None
            if right != backend:
                yield drift(
                    name, pack("<I", number), found=backend_words(backend),
                    expected=self._right(right, users), service=self._service_of(users),
                )  # fmt: skip
        for number in self._users.keys() - self._maps.backends.keys():
            users = self._users[number]
            if not users & self._places:
                yield drift(
                    name, pack("<I", number), expected="a backend that slots name",
                    service=self._service_of(users),
                )  # fmt: skip

    def _right(self, right: Backend | None, users: set[At]) -> str:
        if right is not None:
            return backend_words(right)
        return "a backend that its service has" if users & self._wanted.keys() else ""

    def _service_of(self, users: set[At]) -> str:
        return next((self._wanted[at].service for at in sorted(users & self._wanted.keys())), "")

    def _strangers(self) -> Iterator[Drift]:
        maps, known = self._maps, self._wanted.keys() | self._places
        for at in sorted((maps.masters.keys() | maps.slots.keys()) - known):
            if at in maps.masters:
                yield self._services(at, 0, "", master_words(maps.masters[at]), "")
            for number, slot in sorted(maps.slots.get(at, {}).items()):
                yield self._services(at, number, "", self._slot_words(slot), "")
        for key in maps.strange:
            yield drift("services" + self._family, key, found="an entry of a scope nobody uses")
        ids = {self._id_at(at) for at in known}
        for number in sorted(maps.reverse_nat.keys() - ids):
            found = _address(maps.reverse_nat[number])
            yield drift("reverse_nat" + self._family, pack(">H", number), found=found)
        for number in sorted(maps.tables.keys() - ids):
            yield drift("tables" + self._family, pack(">H", number), found="a table")
        yield from ranges.strangers(self._family, maps.ranges, ids)


def strange_matches(found: Mapping[bytes, bytes], sides: Iterable[Balance]) -> Iterator[Drift]:
    """Affinity matches that belong to no frontend of either family, or that say something."""
    known = {pair for side in sides for pair in side.matches}
    excused = {number for side in sides for number in side.excused}
    for key, value in sorted(found.items()):
        pair = match(key)
        if pair[1] in excused:
            continue
        if pair not in known:
            yield drift(MATCHES, key, found="present")
        elif value != PRESENT:
            yield drift(MATCHES, key, expected="0", found=value.hex(), value=PRESENT)


def service_key(at: At, slot: int) -> bytes:
    """Contract datapath 1.3."""
    port = at.port.to_bytes(2, "big")
    return at.address + port + pack("<HBBxx", slot, at.proto, at.scope)


def target(endpoint: Endpoint) -> Target:
    """The backend that stands for the endpoint."""
    return endpoint.address, endpoint.port, endpoint.proto, endpoint.cluster_id


def _target(backend: Backend) -> Target:
    return backend.address, backend.port, backend.proto, backend.cluster_id


def _target_words(picked: Target | None) -> str:
    return "no backend" if picked is None else address_words(picked[0], picked[1])


def _address(value: bytes) -> str:
    return address_words(value[:-2], int.from_bytes(value[-2:], "big"))


def _users(maps: ServiceMaps) -> dict[int, set[At]]:
    """Backend to the frontends that have a slot for it."""
    found: dict[int, set[At]] = {}
    for at, slots in maps.slots.items():
        for slot in slots.values():
            found.setdefault(slot.backend, set()).add(at)
    return found


def _states(wanted: Iterable[Wanted]) -> dict[Target, int]:
    found: dict[Target, int] = {}
    for it in wanted:
        for endpoint in chain(it.serving, it.standby):
            found[target(endpoint)] = ACTIVE
        for endpoint in it.parked:
            found.setdefault(target(endpoint), TERMINATING)
    return found
