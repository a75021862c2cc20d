"""A sink that remembers facts as the agent must: what is known of each cluster, and the calls."""

from collections.abc import Sequence

from agent.facts import AnyFact, AnyKind, Change
from clustermesh.keys import Kind

OTHER_FORM: dict[AnyKind, AnyKind] = {
    Kind.SERVICES: Kind.ENDPOINT_SLICES,
    Kind.ENDPOINT_SLICES: Kind.SERVICES,
}


class RecordingSink:
    """The rules of ``agent.facts.Sink`` in their plainest form: dictionaries."""

    def __init__(self) -> None:
        self.expected: frozenset[str] = frozenset()
        self.ids: dict[str, int] = {}
        self.facts: dict[tuple[str, AnyKind], dict[str, AnyFact]] = {}
        self.calls: list[tuple[object, ...]] = []
        self._unconfirmed: dict[tuple[str, AnyKind], set[str]] = {}

    def expect(self, clusters: frozenset[str]) -> None:
        self.expected = clusters
        self.calls.append(("expect", *sorted(clusters)))

    def identify(self, cluster: str, cluster_id: int) -> None:
        assert self.ids.setdefault(cluster, cluster_id) == cluster_id, "drain before a new id"
        self.calls.append(("identify", cluster, cluster_id))

    def apply(self, cluster: str, kind: AnyKind, changes: Sequence[Change]) -> None:
        assert len(changes) <= 1000
        known = self.facts.setdefault((cluster, kind), {})
        for key, fact in changes:
            self._unconfirmed.get((cluster, kind), set()).discard(key)
            if fact is None:
                known.pop(key, None)
            else:
                known[key] = fact

    def unconfirmed(self, cluster: str) -> None:
        for (name, kind), known in self.facts.items():
            if name == cluster:
                self._unconfirmed[name, kind] = set(known)
        self.calls.append(("unconfirmed", cluster))

    def synced(self, cluster: str, kind: AnyKind) -> None:
        for key in self._unconfirmed.pop((cluster, kind), ()):
            self.facts[cluster, kind].pop(key, None)
        if kind in OTHER_FORM:
            self.facts.pop((cluster, OTHER_FORM[kind]), None)
        self.calls.append(("synced", cluster, kind))

    def overdue(self, cluster: str) -> None:
        self.calls.append(("overdue", cluster))

    def unsynced(self, cluster: str) -> None:
        self.calls.append(("unsynced", cluster))

    def drain(self, cluster: str) -> None:
        self.ids.pop(cluster, None)
        self.facts = {at: known for at, known in self.facts.items() if at[0] != cluster}
        self._unconfirmed = {at: it for at, it in self._unconfirmed.items() if at[0] != cluster}
        self.calls.append(("drain", cluster))

    def names(self, cluster: str, kind: AnyKind) -> set[str]:
        """What is known of one kind."""
        return set(self.facts.get((cluster, kind), {}))

    def count(self, cluster: str, kind: AnyKind) -> int:
        """How many."""
        return len(self.facts.get((cluster, kind), {}))
