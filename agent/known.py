"""Facts of one kind by cluster and key, with what a full list does to them."""

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


class Known(Generic[T]):
    """What each cluster has told."""

    def __init__(self) -> None:
        self._facts: dict[str, dict[str, T]] = {}
        self._stale: dict[str, set[str]] = {}
        """By cluster: keys that the present full list has not repeated."""

    def put(self, cluster: str, key: str, fact: T) -> None:
        """The key has this value."""
        self._facts.setdefault(cluster, {})[key] = fact
        if cluster in self._stale:
            self._stale[cluster].discard(key)

    def drop(self, cluster: str, key: str) -> T | None:
        """The key is gone; what it had."""
        return self._facts.get(cluster, {}).pop(key, None)

    def doubt(self, cluster: str) -> None:
        """Everything of the cluster may have changed unseen."""
        self._stale[cluster] = set(self._facts.get(cluster, ()))

    def confirm(self, cluster: str) -> set[str]:
        """A full list has been told; keys that it did not repeat. They are still known."""
        return self._stale.pop(cluster, set()) & self._facts.get(cluster, {}).keys()

    def sweep(self, cluster: str) -> None:
        """A full list has been told: forget what it did not repeat."""
        for key in self.confirm(cluster):
            self.drop(cluster, key)

    def drain(self, cluster: str) -> dict[str, T]:
        """Nothing of the cluster is known any more; what was."""
        self._stale.pop(cluster, None)
        return self._facts.pop(cluster, {})

    def of(self, cluster: str) -> Mapping[str, T]:
        """Facts of one cluster by key."""
        return self._facts.get(cluster, {})

    def clusters(self) -> list[str]:
        """Those of which anything is known."""
        return [cluster for cluster, facts in self._facts.items() if facts]

    def items(self) -> Iterator[tuple[str, str, T]]:
        """Cluster, key and fact."""
        for cluster, facts in self._facts.items():
            for key, fact in facts.items():
                yield cluster, key, fact

    def count(self, cluster: str) -> int:
        """How many facts a cluster has told."""
        return len(self._facts.get(cluster, ()))
