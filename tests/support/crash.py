"""Maps that stop the program after so many single writes: a crash, at any step one likes."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from bpf.datapath import Maps
from bpf.errors import MapFullError
from bpf.maps import DictMap, DictTables


class Crash(BaseException):
    """The process is gone; the maps stay."""


class Fuse:
    """Burns down with every single write."""

    def __init__(self, writes: int) -> None:
        self.left = writes

    def burn(self) -> None:
        if self.left == 0:
            raise Crash
        self.left -= 1


class _Fused:
    def __init__(self, target: DictMap | DictTables, fuse: Fuse) -> None:
        self._target = target
        self._fuse = fuse

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)

    def put_many(self, entries: Sequence[tuple[bytes, bytes]]) -> None:
        for done, entry in enumerate(entries):
            self._fuse.burn()
            try:
                self._target.put_many([entry])
            except MapFullError as full:
                raise MapFullError(full.name, self._target.max_entries, applied=done) from None

    def drop_many(self, keys: Sequence[bytes]) -> None:
        for key in keys:
            self._fuse.burn()
            self._target.drop_many([key])

    def swap_many(self, tables: Sequence[tuple[Sequence[bytes], bytes]]) -> None:
        for keys, table in tables:
            for key in keys:
                self._fuse.burn()
                self._target.swap_many([([key], table)])

    def drop(self, keys: Sequence[bytes]) -> None:
        for key in keys:
            self._fuse.burn()
            self._target.drop([key])


def fused(maps: Maps, fuse: Fuse) -> Maps:
    """The same maps, written one entry at a time until the fuse is burnt."""
    members = {}
    for field in fields(maps):
        target = getattr(maps, field.name)
        wrap = isinstance(target, DictMap | DictTables)
        members[field.name] = _Fused(target, fuse) if wrap else target
    return Maps(**members)
