"""Mending differences: strangers go, what is missing or wrong is written.

Entries that follow from facts alone are written here. What has ids of the node's own choice is the
agent's to write: it is told to trust nothing that it believes of these services.
"""

from collections.abc import Sequence
from typing import Final

from agent.audit.compare import Drift
from agent.audit.observed import ADDRESS_MAPS, MATCHES
from bpf.datapath import Maps
from bpf.maps import BpfMap, Tables
from clustermesh.audit import EXTRA

REMOVAL: Final = (
    *("services4", "services6", "tables4", "tables6", "reverse_nat4", "reverse_nat6"),
    *("source_ranges4", "source_ranges6"),
    *("affinity_match", "backends4", "backends6", "ipcache", "tunnel", "nodes"),
)
"""What refers to others goes before what is referred to (contract datapath 5.2)."""


def remove(maps: Maps, drifts: Sequence[Drift]) -> int:
    """Strangers leave the maps; how many. Replacing a table waits for the kernel's readers."""
    removed = 0
    for member in REMOVAL:
        keys = [it.key for it in drifts if it.member == member and it.what.kind == EXTRA]
        if not keys:
            continue
        target: BpfMap | Tables = getattr(maps, member)
        if member.startswith("tables"):
            target.drop(keys)  # type: ignore[union-attr]  # by name
        else:
            target.drop_many(sorted(keys, key=_masters_first))  # type: ignore[union-attr]
        removed += len(keys)
    return removed


def write(maps: Maps, drifts: Sequence[Drift]) -> int:
    """What follows from facts is put right, nodes before what is behind them; how many entries."""
    written = 0
    for member in (*ADDRESS_MAPS, MATCHES):
        target: BpfMap = getattr(maps, member)
        entries = [(it.key, it.value) for it in drifts if it.member == member]
        right = [(key, value) for key, value in entries if value is not None]
        target.put_many(right)
        written += len(right)
    return written


def _masters_first(key: bytes) -> bytes:
    """The number of the slot is at the same place from the end in both families."""
    return key[-6:-4][::-1]
