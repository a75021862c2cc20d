"""The configuration directory: which remote clusters there are, by the content of its files."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import msgspec

from clustermesh.remotes.inotify import DirectoryWatch
from kvstore.config import ConfigError, EtcdConfig, parse
from kvstore.events import shown

MARK: Final = b"endpoints:"
NAME: Final = re.compile(r"([a-z0-9][-a-z0-9]{0,30})?[a-z0-9]")
LIMIT: Final = 1 << 20  # bytes; a client file is a thousandth of it
SETTLE: Final = 0.02  # seconds for a writer that is not atomic to finish


class RemoteFile(msgspec.Struct, frozen=True):
    """One remote cluster's file as it was read: a new ``digest`` is a new configuration.

    ``config`` is None when the file cannot be used; ``problem`` then is a full sentence.
    """

    cluster: str
    path: Path
    digest: str
    config: EtcdConfig | None = None
    problem: str = ""


Remotes = Mapping[str, RemoteFile]


def scan(
    directory: Path, *, own: str, known: Remotes = MappingProxyType({})
) -> tuple[Remotes, str]:
    """All remote clusters that the directory names, and a sentence when it cannot be read. Files
    whose content is ``known`` are not parsed again.

    A file counts when it is readable, no directory, and contains ``endpoints:``; its name is the
    cluster's; the own cluster's is left out (contract kvstore 5.1). Hidden files are none.
    """
    try:
        paths = sorted(path for path in directory.iterdir() if not path.name.startswith("."))
    except OSError as error:
        return {}, f"{directory} cannot be read ({error.strerror}); the remotes stay as they are"
    found = {}
    for path in paths:
        if path.name != own and (file := _read(path, known)) is not None:
            found[file.cluster] = file
    return found, ""


def _read(path: Path, known: Remotes) -> RemoteFile | None:
    try:
        if not path.is_file() or path.stat().st_size > LIMIT:
            return None
        content = path.read_bytes()
    except OSError:
        return None
    if MARK not in content:
        return None
    digest = hashlib.sha256(content).hexdigest()
    name = shown(path.name)
    if name in known and known[name].digest == digest and known[name].path == path:
        return known[name]
    if not NAME.fullmatch(name):
        problem = (
            f"{shown(str(path))}: the file's name is no cluster name; expected 1 to 32 of a-z, 0-9"
            " and -, beginning and ending with a letter or digit; rename it"
        )
        return RemoteFile(name, path, digest, problem=problem)
    try:
        return RemoteFile(name, path, digest, config=parse(content, beside=path.parent))
    except ConfigError as error:
        return RemoteFile(name, path, digest, problem=f"{path}: {error}")


async def follow(
    directory: Path, *, own: str, interval: float
) -> AsyncIterator[tuple[Remotes, str]]:
    """The directory's remotes now, and again after every change; it may come and go.

    Changes are told by inotify where that works; ``interval`` (seconds) bounds what it misses.
    """
    last: tuple[Remotes, str] | None = None
    while True:
        with DirectoryWatch(directory) as watch:
            remotes, problem = await asyncio.to_thread(
                scan, directory, own=own, known=last[0] if last else {}
            )
            if problem and last is not None:
                remotes = last[0]  # what was configured stays so while it cannot be read
            if (remotes, problem) != last:
                last = remotes, problem
                yield last
            if await watch.within(interval):
                await asyncio.sleep(SETTLE)
