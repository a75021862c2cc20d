"""Who has something that several name: the first by name; the others wait."""

from collections.abc import Hashable, Iterable, Mapping
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Ownership(Generic[K]):
    """Claims of names (of services, of nodes) on places."""

    def __init__(self) -> None:
        self._owner: dict[K, str] = {}
        self._rivals: dict[K, set[str]] = {}
        self._claims: dict[str, frozenset[K]] = {}

    def owner(self, place: K) -> str | None:
        """Who has it."""
        return self._owner.get(place)

    def claims(self, name: str) -> frozenset[K]:
        """What a name claims."""
        return self._claims.get(name, frozenset())

    def claim(self, name: str, places: Iterable[K]) -> set[str]:
        """The name claims exactly these now. Others whose standing changed by that."""
        before, after = self.claims(name), frozenset(places)
        if before == after:
            return set()
        if after:
            self._claims[name] = after
        else:
            del self._claims[name]
        touched = {self._give_up(name, place) for place in before - after}
        touched |= {self._demand(name, place) for place in after - before}
        return touched - {"", name}

    def _demand(self, name: str, place: K) -> str:
        owner = self._owner.setdefault(place, name)
        if owner == name:
            return ""
        first, second = sorted((owner, name))
        self._owner[place] = first
        rivals = self._rivals.setdefault(place, set())
        rivals.add(second)
        return owner

    def _give_up(self, name: str, place: K) -> str:
        rivals = self._rivals.get(place, set())
        heir = ""
        if self._owner[place] != name:
            rivals.discard(name)
        elif rivals:
            heir = self._owner[place] = min(rivals)
            rivals.discard(heir)
        else:
            del self._owner[place]
        if not rivals:
            self._rivals.pop(place, None)
        return heir

    def rivals(self) -> Mapping[K, frozenset[str]]:
        """What more than one name claims, with those that wait."""
        return {place: frozenset(names) for place, names in self._rivals.items()}
