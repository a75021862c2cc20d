"""What the service maps hold, their bytes taken apart (contract datapath 1.3 to 1.8) [pure]."""

from collections.abc import Mapping
from struct import iter_unpack, unpack
from typing import Final, NamedTuple

from agent.audit.frontends import At, Clients

Entries = Mapping[bytes, bytes]
Snapshot = Mapping[str, Entries]
"""By member of ``bpf.datapath.Maps``."""

ADDRESS_MAPS: Final = ("nodes", "tunnel", "ipcache")
HASHES: Final = tuple(
    f"{name}{family}"
    for name in ("services", "backends", "reverse_nat", "source_ranges")
    for family in "46"
)
TABLES: Final = ("tables4", "tables6")
MATCHES: Final = "affinity_match"
AUDITED: Final = (*ADDRESS_MAPS, *HASHES, *TABLES, MATCHES)
"""The others are the programs' own: affinity, reverse sockets, counters, events, the state page."""

QUARANTINED: Final = 0x4000
ACTIVE, TERMINATING = 0, 1


class Master(NamedTuple):
    """Slot 0 of a frontend."""

    timeout: int
    serving: int
    id: int
    flags: int
    parked: int


class Slot(NamedTuple):
    """A slot that names a backend."""

    backend: int
    zero: int
    id: int
    flags: int
    nought: int = 0


class Backend(NamedTuple):
    """An entry of a backend map."""

    address: bytes
    port: int
    proto: int
    state: int
    cluster_id: int
    zone: int


class ServiceMaps(NamedTuple):
    """The service maps of one family, taken apart."""

    masters: dict[At, Master]
    slots: dict[At, dict[int, Slot]]
    strange: list[bytes]
    """Keys of entries in a scope that nobody uses."""
    backends: dict[int, Backend]
    reverse_nat: dict[int, bytes]
    tables: dict[int, bytes]
    matches: set[tuple[int, int]]
    """Backend and frontend, by id."""
    ranges: dict[int, dict[Clients, bytes]]
    """Whom a frontend serves, by its id."""


def service_maps(found: Snapshot, family: str) -> ServiceMaps:
    """``family``: 4 or 6."""
    size = 4 if family == "4" else 16
    masters: dict[At, Master] = {}
    slots: dict[At, dict[int, Slot]] = {}
    strange = []
    for key, value in found["services" + family].items():
        address, port, number, proto, scope, _ = unpack(f"<{size}s2sHBB2s", key)
        at = At(address, int.from_bytes(port, "big"), proto, scope)
        union, count, rev_nat, flags, parked = unpack("<IH2sHH", value)
        if scope > 1:
            strange.append(key)
        elif number:
            slot = Slot(union, count, int.from_bytes(rev_nat, "big"), flags, parked)
            slots.setdefault(at, {})[number] = slot
        else:
            masters[at] = Master(union, count, int.from_bytes(rev_nat, "big"), flags, parked)
    return ServiceMaps(
        masters,
        slots,
        strange,
        {int.from_bytes(key, "little"): _backend(it, size)
         for key, it in found["backends" + family].items()},
        {int.from_bytes(key, "big"): it for key, it in found["reverse_nat" + family].items()},
        {int.from_bytes(key, "big"): it for key, it in found["tables" + family].items()},
        {match(key) for key in found[MATCHES]},
        _ranges(found["source_ranges" + family]),
    )  # fmt: skip


def _backend(value: bytes, size: int) -> Backend:
    address, port, proto, state, cluster_id, zone, _ = unpack(f"<{size}s2sBBHBB", value)
    return Backend(address, int.from_bytes(port, "big"), proto, state, cluster_id, zone)


def _ranges(entries: Entries) -> dict[int, dict[Clients, bytes]]:
    found: dict[int, dict[Clients, bytes]] = {}
    for key, value in entries.items():
        number, clients = source_range(key)
        found.setdefault(number, {})[clients] = value
    return found


def source_range(key: bytes) -> tuple[int, Clients]:
    """Frontend, and the clients that it serves."""
    bits, rev_nat, address = unpack(f"<I2s2x{len(key) - 8}s", key)
    return int.from_bytes(rev_nat, "big"), (bits - 32, address)


def match(key: bytes) -> tuple[int, int]:
    """Backend and frontend of an affinity match."""
    backend, rev_nat, _ = unpack("<I2s2s", key)
    return backend, int.from_bytes(rev_nat, "big")


def table(value: bytes) -> list[int]:
    """Backend ids of a selection table."""
    return [number for (number,) in iter_unpack("<I", value)]
