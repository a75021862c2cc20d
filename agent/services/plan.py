"""The steps from what the maps hold to what they should, in an order that is always safe.

Contract datapath 5.1 and 5.2. What is referred to is written before what refers to it, and dropped
after it: backends, slots, reverse NAT, source ranges, master, table; then the other way round.
After any prefix of the steps every master finds its slots, every slot and every table their
backends.

The selection table comes after the master, unlike the contract's: replacing one waits for the
kernel's readers, and until it is there the slots decide. So a frontend works before its table does.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from agent.services.program import (
    MATCH,
    Entry,
    Place,
    Program,
    master,
    match_key,
    range_key,
    reverse_nat,
    slot_key,
    slots,
)
from bpf.layout_lb import pack_backend_id, pack_rev_nat


class Write(NamedTuple):
    """Put these entries into the map."""

    map: str
    entries: list[Entry]


class Drop(NamedTuple):
    """Remove these keys from the map."""

    map: str
    entries: list[bytes]


class Swap(NamedTuple):
    """Replace the selection tables of these services."""

    map: str
    entries: list[Entry]


Step = Write | Drop | Swap
"""Maps are named as in ``bpf.datapath.Maps``."""

T = TypeVar("T")


class Change(NamedTuple):
    """One frontend of a service: what the maps hold, what they should, and the table for that."""

    place: Place
    old: Program | None
    new: Program | None
    table: bytes = b""
    service: str = ""

    @property
    def known(self) -> Program | None:
        """What the maps surely hold."""
        return self.old if self.old is not None and self.old.whole else None

    @property
    def needs_table(self) -> bool:
        """Whether there is a selection table to write."""
        new, known = self.new, self.known
        if new is None or not new.shares:
            return False
        return known is None or self.replaced is not None or known.shares != new.shares

    @property
    def replaced(self) -> Program | None:
        """What the maps hold under an id that the frontend has no more."""
        old, new = self.old, self.new
        return None if old is None or (new is not None and new.id == old.id) else old

    def damaged(self) -> Program:
        """What the maps may hold when the steps ended somewhere on the way."""
        last = self.new or self.old
        if last is None:
            raise ValueError(f"nothing changes at {self.place}")
        slots = max(last.slots, self.old.slots if self.old is not None else 0)
        return msgspec.structs.replace(last, whole=False, slots=slots)


class BackendEntry(NamedTuple):
    """A backend's id and the bytes of its value."""

    id: int
    value: bytes


def plan(changes: Sequence[Change], fresh: Iterable[BackendEntry]) -> Iterator[Step]:
    """Steps that make the changes; none when there is nothing to do.

    ``fresh`` are backends that are new or have changed. Those that nothing refers to after the
    last step are ``bury``'s.
    """
    written = ((_v6_backend(entry), _backend(entry)) for entry in fresh)
    if lost := [key for change in changes for key in _matches_lost(change)]:
        yield Drop("affinity_match", lost)
    yield from _steps(Write, "backends", written)
    yield from _steps(Write, "services", _each(changes, _slots_changed))
    yield from _steps(Write, "reverse_nat", _each(changes, _reverse_nat_changed))
    yield from _steps(Write, "source_ranges", _each(changes, _ranges_gained))
    yield from _steps(Write, "services", _each(changes, _master_changed))
    yield from _steps(Drop, "services", _each(changes, _master_lost))
    yield from _steps(Swap, "tables", _each(changes, _table_changed))
    yield from _steps(Drop, "tables", _each(changes, _table_lost))
    yield from _steps(Drop, "services", _each(changes, _slots_lost))
    yield from _steps(Drop, "source_ranges", _each(changes, _ranges_lost))
    yield from _steps(Drop, "reverse_nat", _each(changes, _reverse_nat_lost))
    if gained := [entry for change in changes for entry in _matches_gained(change)]:
        yield Write("affinity_match", gained)


def bury(orphans: Iterable[BackendEntry], changed: Iterable[BackendEntry]) -> Iterator[Step]:
    """Steps that remove backends to which nothing in the maps refers, and write those whose state
    is another now that some frontend has let go of them."""
    written = ((_v6_backend(entry), _backend(entry)) for entry in changed)
    yield from _steps(Write, "backends", written)
    gone = ((_v6_backend(entry), pack_backend_id(entry.id)) for entry in orphans)
    yield from _steps(Drop, "backends", gone)


def _steps(
    kind: Callable[[str, list[T]], Step], name: str, entries: Iterable[tuple[bool, T]]
) -> Iterator[Step]:
    """At most one step for each family's map."""
    families: tuple[list[T], list[T]] = ([], [])
    for is_v6, entry in entries:
        families[is_v6].append(entry)
    for suffix, members in zip("46", families, strict=True):
        if members:
            yield kind(name + suffix, members)


def _each(
    changes: Sequence[Change], part: Callable[[Change], Iterator[T]]
) -> Iterator[tuple[bool, T]]:
    for change in changes:
        is_v6 = len(change.place.address) == 16
        for entry in part(change):
            yield is_v6, entry


def _v6_backend(entry: BackendEntry) -> bool:
    return len(entry.value) > 12


def _backend(entry: BackendEntry) -> Entry:
    return pack_backend_id(entry.id), entry.value


def _slots_changed(change: Change) -> Iterator[Entry]:
    if change.new is None:
        return
    known = _slot_values(change.known) if change.replaced is None else ()
    wanted = _slot_values(change.new)
    for index, entry in slots(change.place, change.new):
        if index >= len(known) or known[index] != wanted[index]:
            yield entry


def _slot_values(program: Program | None) -> Sequence[tuple[int, bool]]:
    """Backend of each slot, and whether it is parked."""
    if program is None:
        return ()
    parked_from = len(program.backends) - program.parked
    return [(backend, index >= parked_from) for index, backend in enumerate(program.backends)]


def _reverse_nat_changed(change: Change) -> Iterator[Entry]:
    if change.new is not None and (change.known is None or change.replaced is not None):
        yield reverse_nat(change.place, change.new)


def _master_changed(change: Change) -> Iterator[Entry]:
    if change.new is None:
        return
    entry = master(change.place, change.new)
    if change.known is None or master(change.place, change.known) != entry:
        yield entry


def _master_lost(change: Change) -> Iterator[bytes]:
    if change.new is None and change.old is not None:
        yield slot_key(change.place, 0)


def _table_changed(change: Change) -> Iterator[Entry]:
    if change.new is not None and change.needs_table:
        yield pack_rev_nat(change.new.id), change.table


def _table_lost(change: Change) -> Iterator[bytes]:
    old, new = change.old, change.new
    if old is None or not (old.shares or not old.whole):
        return
    if change.replaced is not None or new is None or not new.shares:
        yield pack_rev_nat(old.id)


def _slots_lost(change: Change) -> Iterator[bytes]:
    if change.old is not None:
        kept = len(change.new.backends) if change.new is not None else 0
        for slot in range(kept, change.old.slots):
            yield slot_key(change.place, slot + 1)


def _reverse_nat_lost(change: Change) -> Iterator[bytes]:
    if change.replaced is not None:
        yield pack_rev_nat(change.replaced.id)


def _ranges_gained(change: Change) -> Iterator[Entry]:
    if change.new is None:
        return
    known = change.known.ranges if change.known and not change.replaced else ()
    for clients in change.new.ranges:
        if clients not in known:
            yield range_key(clients, change.new.id), MATCH


def _ranges_lost(change: Change) -> Iterator[bytes]:
    if change.old is None:
        return
    kept = change.new.ranges if change.new is not None and not change.replaced else ()
    for clients in change.old.ranges:
        if clients not in kept:
            yield range_key(clients, change.old.id)


def _matches_lost(change: Change) -> Iterator[bytes]:
    if change.old is None:
        return
    kept = set(change.new.matches) if change.new is not None and not change.replaced else set()
    for backend in change.old.matches:
        if backend not in kept:
            yield match_key(backend, change.old)


def _matches_gained(change: Change) -> Iterator[Entry]:
    if change.new is None:
        return
    known = set(change.known.matches) if change.known and not change.replaced else set()
    for backend in change.new.matches:
        if backend not in known:
            yield match_key(backend, change.new), MATCH
