"""Ask the maps, not the call log: which backends would a packet reach? (Reads bytes as the C does.)"""

from collections import Counter
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
    by_slot = slots(maps, vip, port, protocol)
    table = set(look.table(master.rev_nat))
    if not table:
        return by_slot
    return {endpoint(b.address, b.port) for b in map(look.backend, table)}


def slots(maps: Maps, vip: str, port: int, protocol: str = "TCP") -> set[str]:
    """Backends in the slots that a random draw selects from."""
    look = Looker(maps, vip, port, protocol)
    master = look.entry(0)
    assert master is not None
    found = set()
    for number in range(1, master.count + 1):
        slot = look.entry(number)
        assert slot is not None, f"slot {number} of {master.count} is missing"
        assert slot.rev_nat == master.rev_nat
        assert not slot.flags & ServiceFlag.QUARANTINED
        backend = look.backend(slot.backend_or_timeout)
        found.add(endpoint(backend.address, backend.port))
    return found


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
    found: list[str] = []
    for family in "46":
        services = getattr(maps, "services" + family)
        backends = {
            int.from_bytes(k, "little") for k, _ in getattr(maps, "backends" + family).items()
        }
        named = {unpack_rev_nat(key) for key, _ in getattr(maps, "reverse_nat" + family).items()}
        tables = getattr(maps, "tables" + family)
        for raw, value in services.items():
            key, master = ServiceKey.unpack(raw), ServiceValue.unpack(value)
            if key.slot:
                continue
            at = f"{endpoint(key.address, key.port)}/{key.proto}"
            if master.rev_nat not in named:
                found.append(f"{at}: no reverse NAT entry {master.rev_nat}")
            for number in range(1, master.count + 1):
                slot_key = ServiceKey(key.address, key.port, key.proto, number).pack()
                slot = services.get(slot_key)
                if slot is None:
                    found.append(f"{at}: no slot {number} of {master.count}")
                elif ServiceValue.unpack(slot).backend_or_timeout not in backends:
                    found.append(f"{at}: slot {number} names no backend")
            table = tables.read(pack_rev_nat(master.rev_nat)) if master.count else None
            if table is not None and not set(unpack_table(table)) <= backends:
                found.append(f"{at}: the table names {set(unpack_table(table)) - backends}")
    return found


def identity(maps: Maps, address: str) -> tuple[int, str] | None:
    """Identity and tunnel endpoint of an address by its longest prefix, as the program finds it."""
    raw = packed(address)
    found = maps.ipcache.get(IpcacheKey(raw, len(raw) * 8).pack())
    if found is None:
        return None
    value = IpcacheValue.unpack(found)
    return value.identity, str(ip_address(value.tunnel_endpoint))
