"""What an earlier run left in the service maps, read back: so a restart changes nothing."""

from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from agent.services.program import (
    Place,
    Program,
    Range,
    master,
    match_key,
    range_key,
    reverse_nat,
    shares_of,
    slots,
)
from bpf.datapath import Maps
from bpf.layout_lb import (
    BackendValue,
    ServiceFlag,
    ServiceKey,
    ServiceValue,
    SourceRangeKey,
    pack_rev_nat,
    unpack_backend_id,
    unpack_rev_nat,
)
from bpf.maps import Tables

Keys = dict[str, list[bytes]]
"""Keys by the name of their map in ``bpf.datapath.Maps``."""


class Adopted(NamedTuple):
    """Frontends and backends found, and entries that belong to neither.

    A frontend that an interrupted run left half-made, or that shares its id, has the id 0. Tables
    are not read yet: a program that has one has the shares ``UNREAD`` (see ``with_shares``).
    """

    programs: dict[Place, Program]
    backends: dict[int, BackendValue]
    debris: Keys


UNREAD: Final = b"?"
"""Shares of a table that is there and has not been looked at."""

_NOTHING = Program(
    id=0, backends=(), count=0, parked=0, flags=0, timeout=0, shares=b"", slots=0, whole=False
)


class _Family(NamedTuple):
    """The maps of one address family, and their names' ending."""

    suffix: str
    services: dict[Place, dict[int, ServiceValue]]
    backends: dict[int, BackendValue]
    reverse_nat: dict[bytes, bytes]
    tables: set[bytes]
    ranges: dict[int, list[Range]]
    """Source ranges by frontend id."""


def adopt(maps: Maps) -> Adopted:
    """Reads every service map once."""
    matches = {key for key, _ in maps.affinity_match.items()}
    families = (
        _Family(
            "4",
            _frontends(maps.services4.items()),
            _backends(maps.backends4.items()),
            dict(maps.reverse_nat4.items()),
            set(maps.tables4.keys()),
            _ranges(maps.source_ranges4.items()),
        ),
        _Family(
            "6",
            _frontends(maps.services6.items()),
            _backends(maps.backends6.items()),
            dict(maps.reverse_nat6.items()),
            set(maps.tables6.keys()),
            _ranges(maps.source_ranges6.items()),
        ),
    )
    programs: dict[Place, Program] = {}
    debris: Keys = {"affinity_match": []}
    for family in families:
        _programs(family, matches, programs, debris)
    debris["affinity_match"] = sorted(matches)
    return Adopted(programs, {**families[0].backends, **families[1].backends}, debris)


def _frontends(items: Iterable[tuple[bytes, bytes]]) -> dict[Place, dict[int, ServiceValue]]:
    """Entries of each frontend by slot number; 0 is the master."""
    found: dict[Place, dict[int, ServiceValue]] = {}
    for raw, value in items:
        key = ServiceKey.unpack(raw)
        place = Place(key.address, key.port, key.proto, key.scope)
        found.setdefault(place, {})[key.slot] = ServiceValue.unpack(value)
    return found


def _backends(items: Iterable[tuple[bytes, bytes]]) -> dict[int, BackendValue]:
    return {unpack_backend_id(key): BackendValue.unpack(value) for key, value in items}


def _ranges(items: Iterable[tuple[bytes, bytes]]) -> dict[int, list[Range]]:
    found: dict[int, list[Range]] = {}
    for key in (SourceRangeKey.unpack(raw) for raw, _ in items):
        found.setdefault(key.rev_nat, []).append((key.prefix, key.address))
    return found


def with_shares(program: Program, maps: Maps, *, family: str) -> Program:
    """The program with its table read, which costs as much as all the rest of it."""
    if program.shares != UNREAD:
        return program
    tables: Tables = getattr(maps, "tables" + family)
    found = shares_of(tables.read(pack_rev_nat(program.id)) or b"")
    return msgspec.structs.replace(program, shares=found)


def _programs(
    family: _Family, matches: set[bytes], programs: dict[Place, Program], debris: Keys
) -> None:
    """Adds the family's programs; what they account for leaves ``matches``."""
    ids = {program.id for program in programs.values()}
    for place, entries in sorted(family.services.items()):
        if 0 not in entries or entries[0].rev_nat in ids:
            programs[place] = msgspec.structs.replace(_NOTHING, slots=max(entries))
            continue
        program = _program(place, entries, family, matches)
        programs[place] = program
        ids.add(program.id)
    debris["reverse_nat" + family.suffix] = _strangers(family.reverse_nat, ids)
    debris["tables" + family.suffix] = _strangers(family.tables, ids)
    debris["source_ranges" + family.suffix] = [
        range_key(it, number)
        for number in sorted(family.ranges.keys() - ids)
        for it in family.ranges[number]
    ]


def _strangers(entries: Iterable[bytes], ids: set[int]) -> list[bytes]:
    return sorted(key for key in entries if unpack_rev_nat(key) not in ids)


def _program(
    place: Place, entries: dict[int, ServiceValue], family: _Family, matches: set[bytes]
) -> Program:
    """One frontend as the maps have it; ``whole`` only when every entry is as it would be."""
    top = entries.pop(0)
    last = next((slot for slot in range(1, len(entries) + 1) if slot not in entries), None)
    found = [entries[slot] for slot in range(1, len(entries) + 1 if last is None else last)]
    program = Program(
        id=top.rev_nat,
        backends=tuple(value.backend_or_timeout for value in found),
        count=top.count,
        parked=sum(bool(value.flags & ServiceFlag.QUARANTINED) for value in found),
        flags=top.flags,
        timeout=top.backend_or_timeout,
        shares=UNREAD if pack_rev_nat(top.rev_nat) in family.tables else b"",
        slots=max(entries, default=0),
        ranges=tuple(sorted(family.ranges.get(top.rev_nat, ()))),
    )
    expected = {match_key(backend, program) for backend in program.matches}
    whole = (
        len(found) == program.slots
        and master(place, program)[1] == top.pack()
        and all(entry[1] == found[n].pack() for n, entry in slots(place, program))
        and family.backends.keys() >= set(program.backends)
        and family.reverse_nat.get(pack_rev_nat(program.id)) == reverse_nat(place, program)[1]
        and matches >= expected
        and program.count <= len(program.backends)
    )
    matches -= expected
    if whole:
        return program
    return msgspec.structs.replace(program, whole=False)
