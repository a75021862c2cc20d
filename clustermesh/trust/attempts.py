"""How often somebody may be wrong: a few times a minute each, and all together not much more."""

import time
from collections import OrderedDict, deque
from collections.abc import Callable

WINDOW = 60.0  # seconds
EACH = 10
ALL = 60
MOST_SOURCES = 1024


class Attempts:
    """Failures of the last minute, by source address."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._all: deque[float] = deque()
        self._by: OrderedDict[str, deque[float]] = OrderedDict()

    def allowed(self, source: str) -> bool:
        """Whether this source may try now."""
        return self._count(self._all) < ALL and self._count(self._by.get(source, deque())) < EACH

    def failed(self, source: str) -> None:
        """It was wrong."""
        moment = self._now()
        self._all.append(moment)
        self._by.setdefault(source, deque()).append(moment)
        self._by.move_to_end(source)
        while len(self._by) > MOST_SOURCES:
            self._by.popitem(last=False)

    def _count(self, moments: deque[float]) -> int:
        while moments and moments[0] <= self._now() - WINDOW:
            moments.popleft()
        return len(moments)
