"""The manifest files below a directory: which there are, and which version each is."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePath

import msgspec

SUFFIXES = frozenset({".yaml", ".yml", ".json"})


class Version(msgspec.Struct, frozen=True, gc=False):
    """What tells one version of a file from another; ``modified`` in Unix nanoseconds."""

    inode: int
    size: int
    modified: int


def manifests(root: Path) -> Iterator[str]:
    """Paths below ``root``, in no order. Names that begin with a dot are passed over.

    Links are followed, so that the swap of a mounted ConfigMap is seen. Raises ``OSError`` when
    ``root`` itself cannot be read.
    """
    yield from _below(str(root), "", {_identity(root.stat())}, at_root=True)


def is_manifest(name: str) -> bool:
    """Whether a path below the root is one that ``manifests`` yields."""
    path = PurePath(name)
    return path.suffix in SUFFIXES and not any(part.startswith(".") for part in path.parts)


def below(root: Path, path: str) -> str:
    """The path below ``root`` as ``manifests`` spells it; empty when it is elsewhere."""
    try:
        return PurePath(path).relative_to(root).as_posix()
    except ValueError:
        return ""


def may_lead_to_manifests(root: Path, name: str) -> bool:
    """Whether something that is no manifest itself may be a way to some: a directory, a link.

    Temporary files of careful writers come and go as hidden names; mounted ConfigMaps use names
    that begin with two dots.
    """
    path = root / name
    if path.is_symlink() or path.is_dir() or path.name.startswith("..") or not name:
        return True
    hidden_way = any(part.startswith(".") for part in PurePath(name).parts[:-1])
    return hidden_way or not (path.name.startswith(".") or path.exists())


def version(path: Path) -> Version | None:
    """The file's present version; None when there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return Version(found.st_ino, found.st_size, found.st_mtime_ns)


def _below(
    root: str, prefix: str, visited: set[tuple[int, int]], *, at_root: bool = False
) -> Iterator[str]:
    try:
        entries = list(os.scandir(os.path.join(root, prefix)))  # noqa: PTH118 - prefix has a slash
    except OSError:
        if at_root:
            raise
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        name = prefix + entry.name
        if _is_directory(entry):
            identity = _identity(entry.stat())
            if identity not in visited:
                yield from _below(root, f"{name}/", visited | {identity})
        elif is_manifest(name):
            yield name


def _is_directory(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
