"""Ask the maps, not the call log: where would a packet go? Reads the bytes as the programs do."""

from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address

from bpf.datapath import Maps
from bpf.layout import IpcacheKey, IpcacheValue
from bpf.layout_lb import (
    BackendValue,
    ServiceFlag,
    ServiceKey,
    ServiceValue,
    pack_backend_id,
    pack_rev_nat,
    unpack_rev_nat,
    unpack_table,
)

PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}


def packed(text: str) -> bytes:
    return ip_address(text).packed


def endpoint(address: bytes, port: int) -> str:
    text = str(ip_address(address))
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"


class Looker:
    """One frontend of one map set, looked at from outside."""

    def __init__(self, maps: Maps, vip: str, port: int, protocol: str = "TCP") -> None:
        family = "6" if ":" in vip else "4"
        self.services = getattr(maps, "services" + family)
        self.backends = getattr(maps, "backends" + family)
        self.tables = getattr(maps, "tables" + family)
        self.reverse_nat = getattr(maps, "reverse_nat" + family)
        self.matches = maps.affinity_match
        self.key = ServiceKey(packed(vip), port, PROTOCOLS[protocol])

    def entry(self, slot: int) -> ServiceValue | None:
        key = ServiceKey(self.key.address, self.key.port, self.key.proto, slot)
        raw = self.services.get(key.pack())
        return None if raw is None else ServiceValue.unpack(raw)

    def backend(self, number: int) -> BackendValue:
        raw = self.backends.get(pack_backend_id(number))
        assert raw is not None, f"backend {number} is named by an entry and does not exist"
        return BackendValue.unpack(raw)

    def table(self, rev_nat: int) -> list[int]:
        raw = self.tables.read(pack_rev_nat(rev_nat))
        return [] if raw is None else list(unpack_table(raw))


def where(maps: Maps, vip: str, port: int, protocol: str = "TCP") -> set[str] | None:
    """Backends that a connection could get; None: it passes untouched; empty: it is refused.

    By the selection table, as the program does it; by the slots where there is no table.
    """
    look = Looker(maps, vip, port, protocol)
    master = look.entry(0)
    if master is None:
        return None
    if not master.count:
        return set()
    picks = set(look.table(master.rev_nat)) or {
        slot.backend_or_timeout for slot in selected(look, master)
    }
    return {endpoint(found.address, found.port) for found in map(look.backend, picks)}


def selected(look: Looker, master: ServiceValue) -> Iterator[ServiceValue]:
    """The slots that a random draw selects from."""
    for number in range(1, master.count + 1):
        slot = look.entry(number)
        assert slot is not None, f"slot {number} of {master.count} is missing"
        assert slot.rev_nat == master.rev_nat
        yield slot


def slots(maps: Maps, vip: str, port: int, protocol: str = "TCP") -> tuple[set[str], set[str]]:
    """By its slots: backends for new connections, and those on their way out."""
    look = Looker(maps, vip, port, protocol)
    master = look.entry(0)
    assert master is not None
    used = [look.backend(slot.backend_or_timeout) for slot in selected(look, master)]
    assert not any(slot.flags & ServiceFlag.QUARANTINED for slot in selected(look, master))
    leaving = []
    number = master.count
    while (slot := look.entry(number := number + 1)) is not None:
        if slot.flags & ServiceFlag.QUARANTINED:
            leaving.append(look.backend(slot.backend_or_timeout))
    assert len(leaving) == master.qcount
    return _texts(used), _texts(leaving)


def _texts(backends: list[BackendValue]) -> set[str]:
    return {endpoint(found.address, found.port) for found in backends}


def shares(maps: Maps, vip: str, port: int, protocol: str = "TCP") -> dict[str, float]:
    """The part of new connections that each backend gets, by the selection table."""
    look = Looker(maps, vip, port, protocol)
    master = look.entry(0)
    assert master is not None
    table = look.table(master.rev_nat)
    counts = Counter(endpoint(b.address, b.port) for b in map(look.backend, table))
    return {backend: count / len(table) for backend, count in counts.items()}


def broken_references(maps: Maps) -> list[str]:
    """Everything in the service maps that refers to something which is not there."""
    return [fault for family in "46" for fault in _broken(maps, family)]


def _broken(maps: Maps, family: str) -> Iterator[str]:
    services = getattr(maps, "services" + family)
    backends = {
        int.from_bytes(key, "little") for key, _ in getattr(maps, "backends" + family).items()
    }
    named = {unpack_rev_nat(key) for key, _ in getattr(maps, "reverse_nat" + family).items()}
    tables = getattr(maps, "tables" + family)
    for raw, value in services.items():
        key, master = ServiceKey.unpack(raw), ServiceValue.unpack(value)
        if key.slot:
            continue
        at = f"{endpoint(key.address, key.port)}/{key.proto}"
        if master.rev_nat not in named:
            yield f"{at}: no reverse NAT entry {master.rev_nat}"
        for number in range(1, master.count + 1):
            slot = services.get(ServiceKey(key.address, key.port, key.proto, number).pack())
            if slot is None:
                yield f"{at}: no slot {number} of {master.count}"
            elif ServiceValue.unpack(slot).backend_or_timeout not in backends:
                yield f"{at}: slot {number} names no backend"
        table = tables.read(pack_rev_nat(master.rev_nat)) if master.count else None
        if table is not None and not set(unpack_table(table)) <= backends:
            yield f"{at}: the table names {set(unpack_table(table)) - backends}, no backends"


def identity(maps: Maps, address: str) -> tuple[int, str] | None:
    """Identity and tunnel endpoint (empty: none) of an address, by its longest prefix."""
    raw = packed(address)
    found = maps.ipcache.get(IpcacheKey(raw, len(raw) * 8).pack())
    if found is None:
        return None
    value = IpcacheValue.unpack(found)
    behind = ip_address(value.tunnel_endpoint)
    return value.identity, "" if behind.is_unspecified else str(behind)
