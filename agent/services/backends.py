"""Backends as the maps know them: an id for each address, port and cluster, and who uses it.

A backend belongs to every frontend that has a slot for it; when the last one lets go it is an
orphan. Its state in the map is that of its most favourable use.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from agent.services.ids import Ids
from agent.services.plan import BackendEntry
from agent.services.program import Program
from bpf.layout_lb import BackendState, BackendValue

LAST_ID: Final = (1 << 32) - 2


class BackendKey(NamedTuple):
    """What makes a backend the same one. Cluster id 0: the own cluster's."""

    address: bytes
    port: int
    proto: int
    cluster_id: int


class _Record:
    __slots__ = ("active", "key", "users", "written")

    def __init__(self, key: BackendKey, written: bytes = b"") -> None:
        self.key = key
        self.written = written
        """What the map holds, empty for nothing."""
        self.users = 0
        self.active = 0

    def value(self) -> bytes:
        state = BackendState.ACTIVE if self.active or not self.users else BackendState.TERMINATING
        key = self.key
        return BackendValue(key.address, key.port, key.proto, state, key.cluster_id).pack()


class Backends:
    """All backends of all frontends."""

    def __init__(self) -> None:
        self._ids: Ids[BackendKey] = Ids(1, LAST_ID)
        self._records: dict[int, _Record] = {}

    def adopt(self, found: Mapping[int, BackendValue], programs: Iterable[Program]) -> None:
        """What the maps hold. Of two ids of one backend the lower one is kept in the end."""
        for number, value in sorted(found.items()):
            key = BackendKey(value.address, value.port, value.proto, value.cluster_id)
            self._records[number] = _Record(key, value.pack())
        named = set(self._records)
        for program in programs:
            self.retain(program)
            named.update(program.backends)
        ids = {record.key: number for number, record in reversed(self._records.items())}
        self._ids.adopt(ids, taken=named)

    def id_of(self, key: BackendKey) -> int:
        """Its id; a new one when it has none."""
        number = self._ids.of(key)
        if number not in self._records:
            self._records[number] = _Record(key)
        return number

    def retain(self, program: Program) -> None:
        """The program's slots name these backends."""
        self._count(program, 1)

    def release(self, program: Program) -> None:
        """They do no more."""
        self._count(program, -1)

    def _count(self, program: Program, step: int) -> None:
        parked_from = len(program.backends) - program.parked
        for index, number in enumerate(program.backends):
            record = self._records.get(number)
            if record is not None:
                record.users += step
                record.active += step if index < parked_from else 0

    def fresh(self, ids: Iterable[int]) -> list[BackendEntry]:
        """Those of which the map does not hold the present value. The caller writes them."""
        found = []
        for number in sorted(set(ids)):
            record = self._records.get(number)
            if record is not None and record.users:
                value = record.value()
                if value != record.written:
                    found.append(BackendEntry(number, value))
                    record.written = value
        return found

    def distrust(self, entries: Iterable[BackendEntry]) -> None:
        """These could not be written: the map may hold something else."""
        for entry in entries:
            if entry.id in self._records:
                self._records[entry.id].written = b""

    def orphans(self, ids: Iterable[int]) -> list[BackendEntry]:
        """Those that nothing uses. They are forgotten; the caller drops them from the maps."""
        found = []
        for number in sorted(set(ids)):
            record = self._records.get(number)
            if record is not None and not record.users:
                found.append(BackendEntry(number, record.value()))
                del self._records[number]
                if self._ids.get(record.key) == number:
                    self._ids.release(record.key)
        return found

    def buried(self, entries: Iterable[BackendEntry]) -> None:
        """These orphans are gone from the maps: their ids may be used again."""
        self._ids.reuse(entry.id for entry in entries)

    def unused(self) -> list[int]:
        """Backends that nothing uses, as an interrupted run leaves them."""
        return [number for number, record in self._records.items() if not record.users]

    def known_id(self, key: BackendKey) -> int:
        """Its id, 0 when it has none."""
        return self._ids.get(key) or 0

    def entries(self) -> dict[str, int]:
        """By name in ``bpf.datapath.Maps``: how many there are."""
        six = sum(len(record.key.address) == 16 for record in self._records.values())
        return {"backends4": len(self._records) - six, "backends6": six}
