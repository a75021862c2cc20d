"""The audited maps, read whole."""

from agent.audit.observed import ADDRESS_MAPS, HASHES, MATCHES, TABLES, Entries, Snapshot
from bpf.datapath import Maps
from bpf.maps import BpfMap, Tables


def read(maps: Maps) -> Snapshot:
    """Every audited map. Changes meanwhile may be seen in part."""
    found: dict[str, Entries] = {}
    for name in (*ADDRESS_MAPS, *HASHES, MATCHES):
        target: BpfMap = getattr(maps, name)
        found[name] = dict(target.items())
    for name in TABLES:
        tables: Tables = getattr(maps, name)
        found[name] = {key: tables.read(key) or b"" for key in list(tables.keys())}
    return found
