"""Which number an identity gets: the one its labels hash to, or the next free one."""

import hashlib
from collections.abc import Callable, Iterable

import msgspec


class Assignment(msgspec.Struct, frozen=True, gc=False):
    """These labels have this number."""

    id: int
    labels: str


class Allocator:
    """Numbers by labels, in a cluster's range (``keys.identity_range``).

    The choice depends on the labels and on the numbers already taken only, so that a lost record
    is nearly reproduced by handing over the same labels again. Numbers are kept for ever; when all
    are taken, the one that was given longest ago and that nothing refers to is given away.
    """

    def __init__(
        self, numbers: range, *, in_use: Callable[[int], bool] = lambda _number: False
    ) -> None:
        """``in_use``: whether anything refers to a number (``Exporter.has_identity``)."""
        self._range = numbers
        self._by_labels: dict[str, int] = {}
        self._by_number: dict[int, str] = {}
        self._fresh: dict[int, Assignment] = {}
        self.in_use = in_use

    def restore(self, recorded: Iterable[Assignment]) -> None:
        """What a record says, oldest first; a later assignment of a number wins."""
        for each in recorded:
            if each.id in self._range:
                self._assign(each.id, each.labels)

    def number(self, label_text: str) -> int | None:
        """The number of these labels; None when every number is taken and in use."""
        known = self._by_labels.get(label_text)
        if known is not None:
            return known
        number = self._free(label_text)
        if number is None:
            return None
        self._assign(number, label_text)
        self._fresh[number] = Assignment(number, label_text)
        return number

    def fresh(self) -> list[Assignment]:
        """What was given since the last time: to be recorded before anybody is told."""
        given = list(self._fresh.values())
        self._fresh.clear()
        return given

    def assignments(self) -> list[Assignment]:
        """Every number that is taken, in the order in which they were given."""
        return [Assignment(number, labels) for number, labels in self._by_number.items()]

    def _assign(self, number: int, labels: str) -> None:
        before = self._by_number.pop(number, None)
        if before is not None:
            del self._by_labels[before]
        elsewhere = self._by_labels.get(labels)
        if elsewhere is not None:
            del self._by_number[elsewhere]
        self._by_labels[labels] = number
        self._by_number[number] = labels

    def _free(self, labels: str) -> int | None:
        if len(self._by_number) < len(self._range):
            start = preferred(labels, self._range) - self._range.start
            for step in range(len(self._range)):
                number = self._range[(start + step) % len(self._range)]
                if number not in self._by_number:
                    return number
        return next(
            (n for n in self._by_number if n not in self._fresh and not self.in_use(n)), None
        )


def preferred(labels: str, numbers: range) -> int:
    """The number that the labels hash to."""
    digest = hashlib.sha256(labels.encode()).digest()
    return numbers[int.from_bytes(digest[:8], "big") % len(numbers)]
