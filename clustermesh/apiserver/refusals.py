"""Which objects were refused and why: a bounded list for status, one log line for each."""

import time
from collections.abc import Callable
from typing import Final

from clustermesh.logs import get_logger
from clustermesh.status import Refusal

LIMIT: Final = 200

log = get_logger()


class Refusals:
    """The latest refusals, by what was refused; older ones are only counted."""

    def __init__(self, *, limit: int = LIMIT, now: Callable[[], float] = time.time) -> None:
        self._limit = limit
        self._now = now
        self._listed: dict[str, Refusal] = {}
        self._all: dict[str, None] = {}

    def tell(self, what: str, reason: str | None) -> None:
        """``what`` is refused for ``reason``, or (None) is well again."""
        if reason is None:
            if what in self._all:
                del self._all[what]
                self._listed.pop(what, None)
                log.info("accepted again", what=what)
            return
        last = self._listed.get(what)
        if last is not None and last.reason == reason:
            return
        log.warning("refused", what=what, reason=reason)
        since = last.since if last is not None else self._now()
        self._all[what] = None
        self._listed[what] = Refusal(what=what, reason=reason, since=since)
        if len(self._listed) > self._limit:
            del self._listed[next(iter(self._listed))]

    def __len__(self) -> int:
        """How many objects are refused at present, listed or not."""
        return len(self._all)

    def listed(self) -> tuple[Refusal, ...]:
        """The refusals that are remembered in full, oldest first."""
        return tuple(self._listed.values())
