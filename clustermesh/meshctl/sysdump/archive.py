"""One tar.gz of many parts: nothing in it is a secret, leads outside, or is without bound."""

import io
import os
import re
import tarfile
import time
from pathlib import Path
from typing import Final, Self

import msgspec

from clustermesh.meshctl.sysdump.redact import redacted

PART: Final = 8 << 20
"""Bytes of one part; the rest is cut off, and marked."""
WHOLE: Final = 256 << 20
"""Bytes of all parts, before they are compressed."""
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]")
NAME: Final = 100


class Part(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """A member of the archive. ``missing``: why it is not there; ``cut``: bytes that were left out
    at its end."""

    name: str
    size: int = 0
    cut: int = 0
    missing: str = ""


class Archive:
    """Written while it is collected; refuses to replace a file. Only its owner may read it.

    One that was not finished is removed: nobody takes it for a whole one.
    """

    def __init__(self, path: Path, *, part: int = PART, whole: int = WHOLE) -> None:
        self.parts: list[Part] = []
        self._path = path
        self._top = path.name.removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz")
        self._part = part
        self._room = whole
        self._now = int(time.time())
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW
        self._file = os.fdopen(os.open(path, flags, 0o600), "wb")
        self._tar = tarfile.open(fileobj=self._file, mode="w:gz")  # noqa: SIM115  # closed below

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        whole = kind is None
        try:
            with self._file:
                self._tar.close()
        except OSError:
            whole = False
            if kind is None:
                raise
        finally:
            if not whole:
                self._path.unlink(missing_ok=True)

    def add(self, place: tuple[str, ...], content: bytes) -> None:
        """A part, its secrets marked; ``place`` are folders and a name, whoever thought of them."""
        content = redacted(content)
        fitting = content[: max(0, min(self._part, self._room))]
        self._room -= len(fitting)
        name = self._free("/".join(map(safe, place)))
        self._write(name, fitting)
        self.parts.append(Part(name=name, size=len(fitting), cut=len(content) - len(fitting)))

    def miss(self, place: tuple[str, ...], why: str) -> None:
        """A part that could not be had."""
        name = self._free("/".join(map(safe, place)))
        self.parts.append(Part(name=name, missing=redacted(why.encode()).decode(errors="replace")))

    def close_with(self, index: bytes) -> None:
        """The last part: the table of all."""
        self._write("index.json", redacted(index))

    def _write(self, name: str, content: bytes) -> None:
        member = tarfile.TarInfo(f"{safe(self._top)}/{name}")
        member.size, member.mtime, member.mode = len(content), self._now, 0o600
        self._tar.addfile(member, io.BytesIO(content))

    def _free(self, name: str) -> str:
        """Two names that look alike once they are safe stay two members."""
        taken = {part.name for part in self.parts}
        found, number = name, 2
        while found in taken:
            found, number = f"{name}.{number}", number + 1
        return found


def safe(name: str) -> str:
    """One component of a path, whatever it was: no slash, no leading dot, not empty, not long."""
    cleaned = _UNSAFE.sub("_", name)[:NAME].lstrip(".")
    return cleaned or "_"
