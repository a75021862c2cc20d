"""The file of etcd users that other clusters log in as (contract kvstore 7), followed for ever."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from clustermesh.logs import get_logger
from clustermesh.process import Fault
from kvstore.client import StoreError
from kvstore.config import ConfigError
from kvstore.users import User, load_users

log = get_logger()


def read(path: Path) -> tuple[User, ...]:
    """The users in the file. Raises ``Fault`` naming file and field."""
    try:
        return load_users(path)
    except ConfigError as error:
        raise Fault(f"{path}: {error}") from None
    except OSError as error:
        raise Fault(f"cannot read the users file {path}: {error.strerror}") from None


async def follow(
    path: Path,
    apply: Callable[[Sequence[User]], Awaitable[None]],
    *,
    applied: Sequence[User] | None = None,
    recheck: float,
    report: Callable[[str | None], None],
) -> None:
    """Call ``apply`` with the users whenever they differ from those ``applied``, for ever.

    A file that cannot be read or understood changes nothing; the reason is reported. The content is
    read, not watched: a mounted ConfigMap is swapped as a whole directory.
    """
    while True:
        try:
            users = read(path)
            if users != applied:
                await apply(users)
                applied = users
                log.info("etcd users follow the file", file=str(path), users=len(users))
            report(None)
        except Fault as fault:
            report(str(fault))
        except StoreError as error:
            report(f"the users of {path} are not in etcd yet: {error}")
        await asyncio.sleep(recheck)
