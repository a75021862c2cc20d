"""Services that could not be written: why, and when each is tried again."""

from collections.abc import Iterable
from typing import Final, NamedTuple

DOUBLINGS: Final = 6
"""Each wait is twice the one before, up to 64 times the first."""


class Failure(NamedTuple):
    """Why, when it is tried again (seconds of the loop's clock), and how long after this."""

    reason: str
    at: float
    delay: float


class Retries:
    """Failures by service name."""

    def __init__(self, first: float) -> None:
        self._first = first
        """Seconds before the first repetition."""
        self._failures: dict[str, Failure] = {}
        self._suspects: set[str] = set()
        """Part of a round that failed; each must show that it can be written alone."""

    def failed(self, name: str, reason: str, now: float) -> None:
        """It failed alone."""
        before = self._failures.get(name)
        longest = self._first * 2**DOUBLINGS
        delay = min(before.delay * 2, longest) if before is not None else self._first
        self._failures[name] = Failure(reason, now + delay, delay)
        self._suspects.add(name)

    def isolate(self, names: Iterable[str]) -> None:
        """They failed together."""
        self._suspects.update(names)

    def alone(self, name: str) -> bool:
        """Whether it must not share a round."""
        return name in self._suspects

    def succeeded(self, names: Iterable[str]) -> None:
        """All is well with them."""
        for name in names:
            self._failures.pop(name, None)
            self._suspects.discard(name)

    def due(self, now: float) -> list[str]:
        """Whose time has come. Their next time is set when they fail again."""
        found = [name for name, failure in self._failures.items() if failure.at <= now]
        for name in found:
            failure = self._failures[name]
            self._failures[name] = failure._replace(at=now + failure.delay)
        return found

    def next_time(self) -> float | None:
        """When the next one is due."""
        return min((failure.at for failure in self._failures.values()), default=None)

    def reasons(self) -> dict[str, str]:
        """Why, by service."""
        return {name: failure.reason for name, failure in self._failures.items()}
