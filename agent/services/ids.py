"""Numbers that the kernel knows things by: kept for as long as possible, never reused in haste."""

from collections.abc import Hashable, Iterable, Mapping
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class NoIdLeft(Exception):
    """Every number is taken."""


class Ids(Generic[K]):
    """Numbers from ``first`` to ``last``: next free, with rollover (contract datapath 5.4).

    A key keeps its number until it is released. A released number is not given out again before
    ``reuse``, which the owner calls when nothing in the maps can refer to it any more.
    """

    def __init__(self, first: int, last: int) -> None:
        self._first, self._last = first, last
        self._next = first
        self._ids: dict[K, int] = {}
        self._taken: set[int] = set()

    def adopt(self, ids: Mapping[K, int], *, taken: Iterable[int] = ()) -> None:
        """Numbers that keys have in the maps, and more that must not be given out."""
        self._ids.update(ids)
        self._taken.update(ids.values())
        self._taken.update(taken)
        highest = max((number for number in self._taken if number <= self._last), default=0)
        self._next = max(self._next, highest + 1)

    def of(self, key: K) -> int:
        """The number of a key, a new one when it has none. Raises ``NoIdLeft``."""
        number = self._ids.get(key)
        if number is None:
            number = self._ids[key] = self._free()
            self._taken.add(number)
        return number

    def get(self, key: K) -> int | None:
        """The number of a key, if it has one."""
        return self._ids.get(key)

    def release(self, key: K) -> int | None:
        """The key needs its number no more; the number, which stays taken until ``reuse``."""
        return self._ids.pop(key, None)

    def reuse(self, numbers: Iterable[int]) -> None:
        """Released numbers may be given out again."""
        self._taken.difference_update(numbers)

    def __len__(self) -> int:
        return len(self._ids)

    def _free(self) -> int:
        size = self._last - self._first + 1
        if len(self._taken) >= size:
            raise NoIdLeft(f"all of the {size} ids from {self._first} are taken")
        number = self._next
        while number > self._last or number in self._taken:
            number = self._first if number > self._last else number + 1
        self._next = number + 1
        return number
