"""What remote clusters said, kept on disk, so that a restart beside a dead peer loses nothing.

One journal per cluster: a header, then what was put, deleted and listed, in order. Appending costs
the same whether the mesh is small or large; a journal that outgrew its content is rewritten to a
temporary file and renamed. A torn end (power loss) is noticed by its checksum and left out.
"""

import asyncio
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

import msgspec
import structlog

from agent.facts import AnyKind
from clustermesh.keys import Kind

log = structlog.get_logger()

KEPT: Final = frozenset({Kind.NODES, Kind.SERVICES, Kind.ENDPOINT_SLICES})
"""Kinds that are remembered. Addresses and identities are found in the maps again."""

VERSION: Final = 1
SUFFIX: Final = ".facts"
FRAME: Final = Struct("<II")  # length and CRC-32 of the payload that follows
SLACK: Final = 1 << 20  # bytes of history that are not worth a rewrite
PENDING: Final = 64 << 20  # bytes that may wait for a disk that does not take them


class Op(IntEnum):
    """What a record says."""

    HEADER = 0
    PUT = 1
    DELETE = 2
    LISTING = 3
    LISTED = 4


class Line(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """One record. In a header ``key`` is the cluster and ``number`` its id."""

    op: Op
    kind: str = ""
    key: str = ""
    value: bytes = b""
    number: int = 0
    version: int = VERSION


encoder: Final = msgspec.msgpack.Encoder()
decoder: Final = msgspec.msgpack.Decoder(Line)

Facts = dict[Kind, dict[str, bytes]]


class Saved(msgspec.Struct, frozen=True):
    """What was known of one cluster: raw values by kind and name."""

    cluster: str
    cluster_id: int
    facts: Mapping[Kind, Mapping[str, bytes]]


class ClusterRecord:
    """What one cluster says from now on; written by ``Checkpoint.run``."""

    def __init__(self, cluster: str) -> None:
        self.cluster = cluster
        self.pending = bytearray()
        self.fresh = False
        """Whether ``pending`` begins a new journal instead of continuing the old one."""

    def begin(self, cluster_id: int) -> None:
        """A new journal for a cluster of this id."""
        self.clear()
        self.pending += _frame(Line(Op.HEADER, key=self.cluster, number=cluster_id))

    def put(self, kind: AnyKind, key: str, value: bytes) -> None:
        """``key`` has this value."""
        if kind in KEPT:
            self.pending += _frame(Line(Op.PUT, kind, key, value))

    def delete(self, kind: AnyKind, key: str) -> None:
        """``key`` is gone."""
        if kind in KEPT:
            self.pending += _frame(Line(Op.DELETE, kind, key))

    def listing(self, kind: AnyKind) -> None:
        """A full list begins."""
        if kind in KEPT:
            self.pending += _frame(Line(Op.LISTING, kind))

    def listed(self, kind: AnyKind) -> None:
        """What was put before ``listing`` and not since is gone."""
        if kind in KEPT:
            self.pending += _frame(Line(Op.LISTED, kind))

    def clear(self) -> None:
        """Forget the cluster."""
        self.pending.clear()
        self.fresh = True


class _Part(NamedTuple):
    """What one record had pending when a write began."""

    record: ClusterRecord
    data: bytes
    fresh: bool

    def put_back(self) -> None:
        """It was not written: it comes before what has come since."""
        record = self.record
        if record.fresh or len(self.data) > PENDING:
            return
        record.pending[:0] = self.data
        record.fresh = self.fresh


class Checkpoint:
    """The journals of all clusters in one directory."""

    def __init__(
        self, directory: Path, *, interval: float, report: Callable[[str | None], None]
    ) -> None:
        self._directory = directory
        self._interval = interval
        self._report = report
        self._records: dict[str, ClusterRecord] = {}
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._sizes: dict[str, int] = {}
        """Bytes of each journal right after it was last rewritten."""

    def load(self) -> dict[str, Saved]:
        """Everything that was saved, by cluster. What cannot be read is set aside and named."""
        self._directory.mkdir(parents=True, exist_ok=True)
        found = {}
        for path in sorted(self._directory.glob("*" + SUFFIX)):
            data = path.read_bytes()
            saved = _fold(data)
            if saved is None or saved.cluster != path.name.removesuffix(SUFFIX):
                log.warning("checkpoint not readable", path=str(path))
                path.rename(path.with_suffix(".unreadable"))
                continue
            found[saved.cluster] = saved
            if (whole := sum(size for size, _ in _lines(data))) < len(data):
                os.truncate(path, whole)  # what is appended must not follow a torn record
        return found

    def record(self, cluster: str) -> ClusterRecord:
        """The record of a cluster; there is one."""
        return self._records.setdefault(cluster, ClusterRecord(cluster))

    def forget(self, cluster: str) -> None:
        """A cluster that is configured no more: its journal goes at the next write."""
        self.record(cluster).clear()

    async def run(self) -> None:
        """Write what has come, at most every ``interval`` seconds; once more when cancelled."""
        try:
            while True:
                await asyncio.sleep(self._interval)
                await self.flush()
        finally:
            self._writer.submit(self._write, self._take()).result()
            self._writer.shutdown()

    async def flush(self) -> None:
        """Write now. What the disk does not take is tried again with the next write."""
        batch = self._take()
        if not batch:
            return
        loop = asyncio.get_running_loop()
        failed, problem = await loop.run_in_executor(self._writer, self._write, batch)
        for part in failed:
            part.put_back()
        self._report(problem)

    def _take(self) -> "list[_Part]":
        batch = []
        for record in self._records.values():
            if record.pending or record.fresh:
                batch.append(_Part(record, bytes(record.pending), record.fresh))
                record.pending.clear()
                record.fresh = False
        return batch

    def _write(self, batch: "list[_Part]") -> "tuple[list[_Part], str | None]":
        failed, problem = [], None
        for part in batch:
            try:
                self._append(part.record.cluster, part.data, fresh=part.fresh)
            except OSError as error:
                problem = f"{self._directory}: {error.strerror}; a restart now would forget facts"
                failed.append(part)
        return failed, problem

    def _append(self, cluster: str, data: bytes, *, fresh: bool) -> None:
        path = self._directory / (cluster + SUFFIX)
        if fresh and not data:
            path.unlink(missing_ok=True)
        elif fresh:
            self._replace(path, data)
        else:
            with path.open("ab") as file:
                file.write(data)
                file.flush()
                os.fdatasync(file.fileno())
            if path.stat().st_size > 2 * self._sizes.get(cluster, 0) + SLACK:
                self._rewrite(path)

    def _rewrite(self, path: Path) -> None:
        saved = _fold(path.read_bytes())
        if saved is None:
            return
        lines = [Line(Op.HEADER, key=saved.cluster, number=saved.cluster_id)]
        for kind, facts in saved.facts.items():
            lines += (Line(Op.PUT, kind, key, value) for key, value in facts.items())
        self._replace(path, b"".join(map(_frame, lines)))

    def _replace(self, path: Path, data: bytes) -> None:
        new = path.with_suffix(".new")
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.rename(path)
        folder = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._sizes[path.name.removesuffix(SUFFIX)] = len(data)


def _frame(line: Line) -> bytes:
    payload = encoder.encode(line)
    return FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def _lines(data: bytes) -> Iterator[tuple[int, Line]]:
    """Sizes in bytes and records, up to the first that is torn."""
    at = 0
    while at + FRAME.size <= len(data):
        length, checksum = FRAME.unpack_from(data, at)
        payload = data[at + FRAME.size : at + FRAME.size + length]
        if len(payload) != length or zlib.crc32(payload) != checksum:
            return
        try:
            yield FRAME.size + length, decoder.decode(payload)
        except msgspec.MsgspecError:
            return
        at += FRAME.size + length


def _fold(data: bytes) -> Saved | None:
    """What a journal says in the end; None when it has no header of our version."""
    lines = (line for _, line in _lines(data))
    header = next(lines, None)
    if header is None or header.op is not Op.HEADER or header.version != VERSION:
        return None
    facts: dict[Kind, dict[str, bytes]] = {}
    repeated: dict[Kind, set[str]] = {}
    for line in lines:
        if line.kind in KEPT:
            kind = Kind(line.kind)
            _replay(line, facts.setdefault(kind, {}), repeated.setdefault(kind, set()))
    return Saved(header.key, header.number, facts)


def _replay(line: Line, facts: dict[str, bytes], repeated: set[str]) -> None:
    match line.op:
        case Op.PUT:
            facts[line.key] = line.value
            repeated.add(line.key)
        case Op.DELETE:
            facts.pop(line.key, None)
        case Op.LISTING:
            repeated.clear()
        case Op.LISTED:
            for key in facts.keys() - repeated:
                del facts[key]
        case Op.HEADER:
            facts.clear()
