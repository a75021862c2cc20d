"""When each cluster's word about a service last changed, for whoever wants an explanation."""

import time
from collections.abc import Callable, Iterable


class Ages:
    """A moment per cluster and service; ``clock`` is a steady one, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed: dict[str, dict[str, float]] = {}

    def changed(self, cluster: str, services: Iterable[str]) -> Iterable[str]:
        """The cluster has said something new of these services; hands them on."""
        now = self._clock()
        known = self._changed.setdefault(cluster, {})
        for service in services:
            known[service] = now
        return services

    def age(self, cluster: str, service: str) -> float | None:
        """Seconds since then, None when it said nothing since the start."""
        moment = self._changed.get(cluster, {}).get(service)
        return None if moment is None else self._clock() - moment

    def drain(self, cluster: str) -> None:
        """It says nothing any more."""
        self._changed.pop(cluster, None)
