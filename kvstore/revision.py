"""A revision that remembers which past it is of."""

from typing import Self


class Revision(int):
    """A number for everybody; for the store that gave it also where it belongs, so that a watch is
    resumed only there. A plain number in its place is taken at its word.
    """

    origin: object

    def __new__(cls, number: int, origin: object) -> Self:
        made = super().__new__(cls, number)
        made.origin = origin
        return made
