"""Addresses of this node's own pods, heard in passing: their packets must keep their source."""

from collections.abc import Callable, Sequence

from agent.facts import AnyKind, Change, Me, Sink
from clustermesh.keys import Kind
from clustermesh.model import IPEntry


class LocalPods:
    """A sink before the sink, for the own cluster only: remembers which pods are on this node.

    Where nodes announce no ranges of pod addresses this is all there is to know (design 5).
    """

    def __init__(self, inner: Sink, me: Me, *, changed: Callable[[], None]) -> None:
        self._inner = inner
        self._node_ip = me.node_ip
        self._changed = changed
        self._cidrs: dict[str, str] = {}
        self._stale: set[str] = set()

    @property
    def cidrs(self) -> frozenset[str]:
        """Prefixes of pods on this node."""
        return frozenset(self._cidrs.values())

    def apply(self, cluster: str, kind: AnyKind, changes: Sequence[Change]) -> None:
        """Look, and hand on."""
        if kind is Kind.IPS:
            news = [self._heard(*change) for change in changes]
            if any(news):
                self._changed()
        self._inner.apply(cluster, kind, changes)

    def _heard(self, key: str, fact: object) -> bool:
        """Whether that is news of a pod on this node."""
        self._stale.discard(key)
        if isinstance(fact, IPEntry) and fact.host_ip == self._node_ip:
            cidr = fact.cidr()
            if self._cidrs.get(key) == cidr:
                return False
            self._cidrs[key] = cidr
            return True
        return self._cidrs.pop(key, None) is not None

    def unconfirmed(self, cluster: str) -> None:
        """What the next full list does not repeat is gone."""
        self._stale = set(self._cidrs)
        self._inner.unconfirmed(cluster)

    def synced(self, cluster: str, kind: AnyKind) -> None:
        """A full list."""
        if kind is Kind.IPS:
            for key in self._stale:
                self._cidrs.pop(key, None)
            self._stale = set()
            self._changed()
        self._inner.synced(cluster, kind)

    def expect(self, clusters: frozenset[str]) -> None:
        """Handed on."""
        self._inner.expect(clusters)

    def identify(self, cluster: str, cluster_id: int) -> None:
        """Handed on."""
        self._inner.identify(cluster, cluster_id)

    def overdue(self, cluster: str) -> None:
        """Handed on."""
        self._inner.overdue(cluster)

    def unsynced(self, cluster: str) -> None:
        """Handed on."""
        self._inner.unsynced(cluster)

    def drain(self, cluster: str) -> None:
        """Handed on."""
        self._inner.drain(cluster)
