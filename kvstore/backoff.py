"""Waiting longer after every failure, jittered so that a fleet does not come back all at once."""

from collections.abc import Iterator
from itertools import count
from random import Random


class Backoff:
    """Iterating gives seconds to wait: doubling from ``first`` to ``ceiling``, each shortened by up
    to ``jitter`` of it.
    """

    def __init__(
        self,
        *,
        first: float = 0.05,
        ceiling: float = 60.0,
        jitter: float = 0.3,
        random: Random | None = None,
    ) -> None:
        self._first = first
        self._ceiling = ceiling
        self._jitter = jitter
        self._random = random or Random()  # noqa: S311 - spreads load, keeps no secret
        self._next = first

    def __iter__(self) -> Iterator[float]:
        return self

    def __next__(self) -> float:
        wait, self._next = self._next, min(self._next * 2, self._ceiling)
        return wait * (1 - self._jitter * self._random.random())

    def reset(self) -> None:
        """It worked: the next failure waits the first time again."""
        self._next = self._first


def rising(
    *, step: float = 0.25, ceiling: float = 30.0, jitter: float = 0.3, random: Random | None = None
) -> Iterator[float]:
    """Seconds to wait that grow by ``step`` each time up to ``ceiling``, jittered as above.

    For what is missing but no failure: after t seconds it is noticed within the root of t/2, where
    doubling would miss it for as long again.
    """
    random = random or Random()  # noqa: S311 - as above
    for turn in count(1):
        yield min(turn * step, ceiling) * (1 - jitter * random.random())
