"""What the kernel's maps hold for one frontend, read entry by entry as the programs read it."""

from collections import Counter
from typing import NamedTuple

from agent.services.program import Place, slot_key
from bpf.datapath import Maps
from bpf.layout_lb import (
    BackendValue,
    ReverseNatValue,
    ServiceValue,
    pack_backend_id,
    pack_rev_nat,
    unpack_table,
)
from bpf.maps import BpfMap, Tables

MOST_SLOTS = 0xFFFF


class Slot(NamedTuple):
    """Slot ``number`` names backend ``id``; ``value`` is None when there is no such backend."""

    number: int
    id: int
    value: BackendValue | None


class Program(NamedTuple):
    """A frontend's entries. ``table`` counts a selection table's entries by backend id."""

    master: ServiceValue
    slots: tuple[Slot, ...]
    table: Counter[int] | None
    reverse_nat: ReverseNatValue | None


def read(maps: Maps, place: Place) -> Program | None:
    """None when the frontend is not in the maps. Raises ``BpfError``."""
    six = len(place.address) == 16
    services, backends, reverse_nat, tables = (
        (maps.services6, maps.backends6, maps.reverse_nat6, maps.tables6)
        if six
        else (maps.services4, maps.backends4, maps.reverse_nat4, maps.tables4)
    )
    top = services.get(slot_key(place, 0))
    if top is None:
        return None
    master = ServiceValue.unpack(top)
    back = reverse_nat.get(pack_rev_nat(master.rev_nat))
    return Program(
        master,
        _slots(services, backends, place),
        _table(tables, master.rev_nat),
        None if back is None else ReverseNatValue.unpack(back),
    )


def _slots(services: BpfMap, backends: BpfMap, place: Place) -> tuple[Slot, ...]:
    found = []
    for number in range(1, MOST_SLOTS + 1):
        raw = services.get(slot_key(place, number))
        if raw is None:
            break
        backend_id = ServiceValue.unpack(raw).backend_or_timeout
        value = backends.get(pack_backend_id(backend_id))
        found.append(
            Slot(number, backend_id, None if value is None else BackendValue.unpack(value))
        )
    return tuple(found)


def _table(tables: Tables, service_id: int) -> Counter[int] | None:
    raw = tables.read(pack_rev_nat(service_id))
    return None if raw is None else Counter(unpack_table(raw))
