"""The file of etcd users that other clusters log in as (contract kvstore 7), followed for ever."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from clustermesh.logs import get_logger
from clustermesh.process import Fault

log = get_logger()


class Peer(msgspec.Struct, frozen=True):
    """One user of another cluster; its certificate's common name is ``name``."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][-A-Za-z0-9._]{0,252}$")]
    role: Annotated[str, msgspec.Meta(pattern=r"^remote$")] = "remote"


class _File(msgspec.Struct, frozen=True):
    users: tuple[Peer, ...] | None = None


def parse(content: bytes, *, path: Path) -> tuple[Peer, ...]:
    """The users in a file. Raises ``Fault`` naming the field."""
    import yaml

    try:
        document = yaml.safe_load(content)
        users = msgspec.convert({} if document is None else document, _File).users or ()
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at ")
        raise Fault(f"{path}: {place.strip('`') or '$'}: {reason}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Fault(f"{path}: expected YAML: {' '.join(str(error).split())}") from None
    names = [user.name for user in users]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise Fault(f"{path}: $.users[{index}].name: {name!r} is there twice")
    return users


def read(path: Path) -> tuple[Peer, ...]:
    """The users in the file. Raises ``Fault``."""
    return parse(_content(path), path=path)


async def follow(
    path: Path,
    apply: Callable[[Sequence[Peer]], Awaitable[None]],
    *,
    recheck: float,
    report: Callable[[str | None], None],
) -> None:
    """Call ``apply`` with the users now and after each change of the content, for ever.

    A file that cannot be read or understood changes nothing; the reason is reported. The content is
    compared, not the time of change: a mounted ConfigMap is swapped as a whole directory.
    """
    applied: bytes | None = None
    while True:
        try:
            content = _content(path)
            if content != applied:
                users = parse(content, path=path)
                await apply(users)
                applied = content
                log.info("etcd users follow the file", file=str(path), users=len(users))
            report(None)
        except Fault as fault:
            report(str(fault))
        await asyncio.sleep(recheck)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Fault(f"cannot read the users file {path}: {error.strerror}") from None
