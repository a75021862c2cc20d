"""Keys and values of the maps as an operator reads them [pure]."""

from collections.abc import Callable, Mapping
from struct import unpack
from typing import Final

from agent.audit.frontends import PROTOCOLS, At
from agent.audit.observed import QUARANTINED, Backend, Master, Slot, match, source_range
from clustermesh.addresses import spelled

_NAMES: Final = {number: name for name, number in PROTOCOLS.items()}
_STATES: Final = ("active", "terminating", "quarantined", "maintenance")


def key_words(member: str, key: bytes) -> str:
    """What an entry is about."""
    words = _KEYS.get(member) or _KEYS.get(member.rstrip("46"))
    return words(key) if words else f"frontend {int.from_bytes(key, 'big')}"


def value_words(member: str, value: bytes) -> str:
    """What an address map's entry says."""
    if member == "ipcache":
        identity, endpoint, _, key, flags = unpack("<I4sHBB", value)
        more = f" key {key}" if key else ""
        more += f" flags {flags:#x}" if flags else ""
        return f"identity {identity} behind {spelled(endpoint)}{more}"
    if member == "tunnel":
        return _padded(value)
    cluster, low, high, flags = unpack("<IIII", value)
    return f"cluster {cluster}, identities {low} to {high}{f', flags {flags:#x}' if flags else ''}"


def _prefix(key: bytes) -> str:
    bits, cluster, _, family, raw = unpack("<IHBB16s", key)
    address = spelled(raw[:4] if family == 1 else raw)
    return f"{address}/{bits - 32}{f'@{cluster}' if cluster else ''}"


def _padded(raw: bytes) -> str:
    return spelled(raw[:4] if raw[16] == 1 else raw[:16])


def _service(key: bytes) -> str:
    size = len(key) - 8
    at = At(key[:size], int.from_bytes(key[size : size + 2], "big"), key[size + 4])
    number, scope = int.from_bytes(key[size + 2 : size + 4], "little"), key[size + 5]
    slot = f" slot {number}" if number else ""
    return f"{place_words(at)}{slot}{f' scope {scope}' if scope else ''}"


def _match(key: bytes) -> str:
    return "backend {} of frontend {}".format(*match(key))


def _source_range(key: bytes) -> str:
    number, (bits, address) = source_range(key)
    return f"clients {spelled(address)}/{bits} of frontend {number}"


_KEYS: Final[Mapping[str, Callable[[bytes], str]]] = {
    "routes": bytes.decode,
    "ipcache": _prefix,
    "tunnel": _padded,
    "nodes": spelled,
    "services": _service,
    "backends": lambda key: f"backend {int.from_bytes(key, 'little')}",
    "affinity_match": _match,
    "source_ranges": _source_range,
}


def place_words(at: At) -> str:
    """``10.96.0.1:80/TCP``."""
    return f"{address_words(at.address, at.port)}/{_NAMES.get(at.proto, at.proto)}"


def address_words(address: bytes, port: int) -> str:
    """``10.2.0.9:8080``; an IPv6 address in brackets."""
    text = spelled(address)
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"


def master_words(master: Master | None) -> str:
    """What slot 0 says."""
    if master is None:
        return ""
    return (
        f"{master.serving} serving, {master.parked} parked, flags {master.flags:#x},"
        f" affinity {master.timeout} s, id {master.id}"
    )


def backend_words(backend: Backend | None) -> str:
    """Where a backend is, and in what state."""
    if backend is None:
        return "a backend that does not exist"
    known = backend.state < len(_STATES)
    state = _STATES[backend.state] if known else f"state {backend.state}"
    zone = f" zone {backend.zone}" if backend.zone else ""
    where = address_words(backend.address, backend.port)
    proto = _NAMES.get(backend.proto, backend.proto)
    return f"{where}/{proto} of cluster {backend.cluster_id} {state}{zone}"


def slot_words(slot: Slot | None, backend: Backend | None) -> str:
    """What a slot says; empty for none."""
    if slot is None:
        return ""
    parked = " parked" if slot.flags & QUARANTINED else ""
    return f"backend {slot.backend} ({backend_words(backend)}){parked} of frontend {slot.id}"
