"""What remote clusters said, kept on disk, so that a restart beside a dead peer loses nothing.

One journal per cluster: a header, then what was put, deleted and listed, in order. Appending costs
the same whether the mesh is small or large; a journal that outgrew its content is rewritten to a
temporary file and renamed. A torn end (power loss, a full disk) is noticed by its checksum, left
out, and cut off before anything follows it.
"""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from agent import journal
from agent.facts import AnyKind
from agent.journal import KEPT, Line, Op, Saved, frame

__all__ = ["FOLDERS", "OWN", "REMOTES", "Checkpoint", "ClusterRecord", "Saved"]

log = structlog.get_logger()

REMOTES: Final = "remotes"
OWN: Final = "own"
FOLDERS: Final = (REMOTES, OWN)
"""Of the state directory: facts of remote clusters, and what is kept of the own one."""
SUFFIX: Final = ".facts"
SLACK: Final = 1 << 20  # bytes of history that are not worth a rewrite
PENDING: Final = 64 << 20  # bytes that may wait for a disk that does not take them


class ClusterRecord:
    """What one cluster says from now on; written by ``Checkpoint.run``."""

    def __init__(self, cluster: str) -> None:
        self.cluster = cluster
        self.pending = bytearray()
        self.fresh = False
        """Whether ``pending`` begins a new journal instead of continuing the old one."""
        self.lost = False
        """Whether there is a gap: nothing is kept until the next ``begin``. A journal that lacks
        something is worse than none, since nobody waits for what it lacks."""

    def begin(self, cluster_id: int) -> None:
        """A new journal for a cluster of this id; full lists follow."""
        self.clear()
        self._add(Line(Op.HEADER, key=self.cluster, number=cluster_id))

    def put(self, kind: AnyKind, key: str, value: bytes) -> None:
        """``key`` has this value."""
        if kind in KEPT:
            self._add(Line(Op.PUT, kind, key, value))

    def delete(self, kind: AnyKind, key: str) -> None:
        """``key`` is gone."""
        if kind in KEPT:
            self._add(Line(Op.DELETE, kind, key))

    def listing(self, kind: AnyKind) -> None:
        """A full list begins."""
        if kind in KEPT:
            self._add(Line(Op.LISTING, kind))

    def listed(self, kind: AnyKind) -> None:
        """What was put before ``listing`` and not since is gone."""
        if kind in KEPT:
            self._add(Line(Op.LISTED, kind))

    def clear(self) -> None:
        """Forget the cluster."""
        self.pending.clear()
        self.fresh = True
        self.lost = False

    def give_up(self) -> None:
        """More waits for the disk than may wait."""
        self.clear()
        self.lost = True

    def _add(self, line: Line) -> None:
        if not self.lost:
            self.pending += frame(line)


class _Part(NamedTuple):
    """What one record had pending when a write began."""

    record: ClusterRecord
    data: bytes
    fresh: bool

    def put_back(self) -> None:
        """It was not written: it comes before what has come since."""
        record = self.record
        if record.fresh:
            return
        if len(self.data) > PENDING:
            record.give_up()
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
        self._sizes: dict[Path, int] = {}
        """Bytes of each journal right after it was last rewritten."""
        self._torn: dict[Path, int] = {}
        """Bytes of each journal that are good, where what follows them is not."""

    def load(self) -> dict[str, Saved]:
        """Everything that was saved, by cluster. What cannot be read is set aside and named."""
        found = {}
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            paths = sorted(self._directory.glob("*" + SUFFIX))
        except OSError as error:
            log.warning("no checkpoint", path=str(self._directory), reason=error.strerror)
            return {}
        for path in paths:
            try:
                saved = self._open(path)
            except OSError as error:
                log.warning("checkpoint not readable", path=str(path), reason=error.strerror)
                continue
            if saved is not None:
                found[saved.cluster] = saved
        return found

    def _open(self, path: Path) -> Saved | None:
        data = path.read_bytes()
        saved = journal.fold(data)
        if saved is None or saved.cluster != path.name.removesuffix(SUFFIX):
            log.warning("checkpoint not readable", path=str(path), reason="not a journal of ours")
            path.rename(path.with_suffix(".unreadable"))
            return None
        if (good := journal.whole(data)) < len(data):
            self._torn[path] = good
        self._sizes[path] = len(journal.unfold(saved))
        return saved

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
        self._report(problem or self._gap())

    def _gap(self) -> str | None:
        lost = sorted(record.cluster for record in self._records.values() if record.lost)
        if not lost:
            return None
        return (
            f"{self._directory}: the disk took nothing for too long; a restart now would forget"
            f" the facts of {', '.join(lost)}, until their next full lists"
        )

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
            path = self._directory / (part.record.cluster + SUFFIX)
            try:
                self._save(path, part.data, fresh=part.fresh)
            except OSError as error:
                problem = f"{self._directory}: {error.strerror}; a restart now would forget facts"
                failed.append(part)
                continue
            try:
                self._shorten(path)
            except OSError as error:  # what was to be saved is
                problem = f"{self._directory}: {error.strerror}; {path.name} grows"
        return failed, problem

    def _save(self, path: Path, data: bytes, *, fresh: bool) -> None:
        if not fresh:
            self._append(path, data)
        elif data:
            self._replace(path, data)
        else:
            path.unlink(missing_ok=True)
            self._torn.pop(path, None)

    def _append(self, path: Path, data: bytes) -> None:
        """All of it, or else what is there of it is cut off before the next."""
        with open(path, "ab", opener=_for_us) as file:
            if path in self._torn:
                os.ftruncate(file.fileno(), self._torn[path])
            self._torn[path] = os.fstat(file.fileno()).st_size
            file.write(data)
            file.flush()
            os.fdatasync(file.fileno())
        del self._torn[path]

    def _shorten(self, path: Path) -> None:
        """Rewrite a journal that outgrew its content."""
        if not path.exists() or path.stat().st_size <= 2 * self._sizes.get(path, 0) + SLACK:
            return
        saved = journal.fold(path.read_bytes())
        if saved is not None:
            self._replace(path, journal.unfold(saved))

    def _replace(self, path: Path, data: bytes) -> None:
        new = path.with_suffix(".new")
        try:
            with open(new, "wb", opener=_for_us) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            new.rename(path)
        except OSError:
            new.unlink(missing_ok=True)  # where the disk is full, it is needed
            raise
        self._torn.pop(path, None)
        self._sizes[path] = len(data)
        folder = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _for_us(path: str, flags: int) -> int:
    """Nobody else reads what peers have told us."""
    return os.open(path, flags, 0o600)
