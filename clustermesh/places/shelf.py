"""Named pieces that are read and replaced one at a time: files of a folder, keys of a Secret."""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Final, NamedTuple, Protocol, Self

from clustermesh.errors import MeshError
from clustermesh.pki import write_private

MOUNTED: Final = "/var/lib/cilium/clustermesh"
"""Where Cilium's agents and ours find the keys of their Secret as files (contract kvstore 5.1)."""
PRIVATE: Final = 0o700


REHEARSING: Final[ContextVar[bool]] = ContextVar("rehearsing", default=False)


@contextmanager
def rehearsed(really: bool) -> Iterator[None]:  # noqa: FBT001  # what --dry-run says
    """What is written meanwhile is not kept; API servers judge it like any other write."""
    token = REHEARSING.set(really)
    try:
        yield
    finally:
        REHEARSING.reset(token)


class Taken(MeshError):
    """Somebody else was there first: read again."""


class Shelf(Protocol):
    """The files of a directory, or the keys of a Secret or ConfigMap."""

    @property
    def directory(self) -> str:
        """Where the processes that read the pieces find them as files."""
        ...

    def pieces(self) -> dict[str, bytes]:
        """All that there are."""
        ...

    def read(self, name: str, /) -> bytes:
        """What a piece holds; empty when there is none."""
        ...

    def put(self, name: str, content: bytes | None, /) -> None:
        """Replace a piece in one step; None removes it. Both may be repeated."""
        ...

    def put_all(self, pieces: Mapping[str, bytes | None], /) -> None:
        """Replace several: in one step where the place can, else one after the other."""
        ...

    def swap(self, name: str, before: bytes, after: bytes, /) -> None:
        """The same as ``put``, only while it holds ``before``. Raises ``Taken`` otherwise.

        Empty: only while there is none.
        """
        ...

    def where(self, name: str) -> str:
        """How to tell an operator of the piece."""
        ...


class Folder(NamedTuple):
    """A directory on this machine. Of several processes that ``swap`` one waits for the other.

    A piece may be named by an absolute path: a key that is kept elsewhere.
    """

    path: Path

    @classmethod
    def made(cls, path: Path) -> Self:
        """A directory that only its owner may read, made when it is not there."""
        if not REHEARSING.get():
            path.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        return cls(path)

    @property
    def directory(self) -> str:
        return str(self.path)

    def pieces(self) -> dict[str, bytes]:
        try:
            names = sorted(it.name for it in self.path.iterdir() if it.is_file())
        except FileNotFoundError:
            return {}
        return {name: self.read(name) for name in names}

    def read(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return b""

    def put(self, name: str, content: bytes | None) -> None:
        """On disk when it returns, the directory's entry as well."""
        if REHEARSING.get():
            return
        if content is None:
            (self.path / name).unlink(missing_ok=True)
        else:
            write_private(self.path / name, content)
        _sync(self.path)

    def put_all(self, pieces: Mapping[str, bytes | None]) -> None:
        for name, content in pieces.items():
            self.put(name, content)

    def swap(self, name: str, before: bytes, after: bytes) -> None:
        with self._alone():
            if self.read(name) != before:
                raise Taken(f"{self.where(name)} has been changed by somebody else.")
            self.put(name, after)

    def where(self, name: str) -> str:
        return str(self.path / name)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """A lock on the directory, which ends with the process at the latest."""
        if REHEARSING.get():
            yield
            return
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


class Nothing(NamedTuple):
    """Where nothing can be kept: the cluster's files are elsewhere."""

    cluster: str
    directory: str = MOUNTED

    def pieces(self) -> dict[str, bytes]:
        return {}

    def read(self, _: str) -> bytes:
        return b""

    def put(self, name: str, _: bytes | None) -> None:
        raise MeshError(
            f"{self.cluster}: the mesh file gives neither `context` nor `config-dir`, so {name}"
            " cannot be written there; `meshctl connect --print` gives the Secret to apply."
        )

    def put_all(self, pieces: Mapping[str, bytes | None]) -> None:
        for name, content in pieces.items():
            self.put(name, content)

    def swap(self, name: str, _: bytes, after: bytes) -> None:
        self.put(name, after)

    def where(self, name: str) -> str:
        return f"{name}, by --print"


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
