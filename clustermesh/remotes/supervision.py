"""A connection that ends is begun anew: the bulkhead between one cluster and all the others."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import structlog

from clustermesh.process import describe
from clustermesh.remotes.progress import Progress
from kvstore.backoff import Backoff

log = structlog.get_logger()


class ConfigChanged(Exception):
    """The cluster's config says something else now: this connection cannot go on."""


async def keep_connected(
    connect: Callable[[], Awaitable[None]], progress: Progress, *, ceiling: float
) -> None:
    """Connect again whenever it ends, after a wait that grows up to ``ceiling`` seconds.

    Whatever goes wrong, a bug of ours included, is told in ``progress`` and harms nobody else.
    """
    backoff = Backoff(ceiling=ceiling)
    clock = asyncio.get_running_loop().time
    while True:
        began = clock()
        try:
            await connect()
        except Exception as error:  # noqa: BLE001  # what it is here for
            if all(isinstance(cause, ConfigChanged) for cause in causes(error)):
                log.info("cluster config changed", cluster=progress.cluster)
                backoff.reset()
                continue
            if clock() - began > ceiling:
                backoff.reset()
            wait = next(backoff)
            reason = "; ".join(dict.fromkeys(map(describe, causes(error))))
            progress.trouble("connection", f"{reason}; trying again in {wait:.2g} s")
            await asyncio.sleep(wait)


def causes(error: BaseException) -> Iterator[BaseException]:
    """The errors that a task group bundled."""
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from causes(part)
    else:
        yield error
