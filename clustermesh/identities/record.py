"""The record of numbers in a file: one line per assignment, appended and on disk before use."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from clustermesh.identities.allocator import Assignment

FILE_NAME = "identities.jsonl"
"""In the state directory."""

_line = msgspec.json.Decoder(Assignment)


class RecordError(OSError):
    """The record cannot be read or written; the text says which file and why."""


class FileRecord:
    """Append-only. A line cut short by a crash was never told to anybody, so it is dropped.

    Its calls block for the time of a disk flush.
    """

    def __init__(self, path: Path) -> None:
        """Nothing is read yet."""
        self._path = path

    def load(self) -> tuple[list[Assignment], list[str]]:
        """The assignments, oldest first, and a sentence per line that is none.

        Raises ``RecordError``.
        """
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return [], []
        except OSError as error:
            raise RecordError(f"cannot read {self._path}: {error.strerror}") from error
        found: list[Assignment] = []
        complaints: list[str] = []
        lines = data.split(b"\n")
        for number, line in enumerate(lines[:-1], start=1):
            try:
                found.append(_line.decode(line))
            except msgspec.MsgspecError as error:
                complaints.append(f"{self._path} line {number}: {error}")
        if lines[-1]:
            complaints.append(f"{self._path} line {len(lines)}: cut short, dropped")
            self._rewrite(found)
        return found, complaints

    def append(self, assignments: Sequence[Assignment]) -> None:
        """Write the assignments down, on disk when this returns. Raises ``RecordError``."""
        if not assignments:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            existed = self._path.exists()
            with self._path.open("ab") as file:
                file.write(_lines(assignments))
                file.flush()
                os.fsync(file.fileno())
            if not existed:
                self._sync_directory()
        except OSError as error:
            raise RecordError(f"cannot write {self._path}: {error.strerror}") from error

    def _rewrite(self, assignments: Sequence[Assignment]) -> None:
        fresh = self._path.with_suffix(".new")
        try:
            with fresh.open("wb") as file:
                file.write(_lines(assignments))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
            self._sync_directory()
        except OSError as error:
            raise RecordError(f"cannot write {self._path}: {error.strerror}") from error

    def _sync_directory(self) -> None:
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _lines(assignments: Iterable[Assignment]) -> bytes:
    return b"".join(msgspec.json.encode(each) + b"\n" for each in assignments)
