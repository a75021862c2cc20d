"""What the agent itself needs of the own cluster's facts, heard in passing on their way."""

from collections.abc import Callable, Sequence

from agent.facts import AnyFact, AnyKind, Change, LocalKind, Me, Sink
from clustermesh.keys import Kind
from clustermesh.local import LocalService
from clustermesh.model import IPEntry


class Hearing:
    """A sink before the sink, for the own cluster only.

    Pods of this node: their packets must keep their source, and where nodes announce no ranges of
    pod addresses this is all there is to know of them (design 5). Global services: counted.
    """

    def __init__(self, inner: Sink, me: Me, *, changed: Callable[[], None]) -> None:
        self._inner = inner
        self._node_ip = me.node_ip
        self._changed = changed
        self._heard: dict[AnyKind, dict[str, str]] = {Kind.IPS: {}, LocalKind.SERVICES: {}}
        """By kind and key: what is remembered of a fact."""
        self._stale: dict[AnyKind, set[str]] = {}

    @property
    def pods(self) -> frozenset[str]:
        """Prefixes of pods on this node."""
        return frozenset(self._heard[Kind.IPS].values())

    @property
    def global_services(self) -> int:
        """How many services of the own cluster are global."""
        return len(self._heard[LocalKind.SERVICES])

    def apply(self, cluster: str, kind: AnyKind, changes: Sequence[Change]) -> None:
        """Listen, and hand on."""
        if kind in self._heard:
            news = [self._listen(kind, key, fact) for key, fact in changes]
            if any(news):
                self._changed()
        self._inner.apply(cluster, kind, changes)

    def _listen(self, kind: AnyKind, key: str, fact: AnyFact | None) -> bool:
        """Whether that is news."""
        heard = self._heard[kind]
        if kind in self._stale:
            self._stale[kind].discard(key)
        kept = self._kept(fact)
        if heard.get(key, "") == kept:
            return False
        if kept:
            heard[key] = kept
        else:
            del heard[key]
        return True

    def _kept(self, fact: AnyFact | None) -> str:
        if isinstance(fact, IPEntry) and fact.host_ip == self._node_ip:
            return fact.cidr()
        if isinstance(fact, LocalService) and fact.is_global:
            return "global"
        return ""

    def unconfirmed(self, cluster: str) -> None:
        """What the next full lists do not repeat is gone."""
        self._stale = {kind: set(heard) for kind, heard in self._heard.items()}
        self._inner.unconfirmed(cluster)

    def synced(self, cluster: str, kind: AnyKind) -> None:
        """A full list."""
        for key in self._stale.pop(kind, ()):
            del self._heard[kind][key]
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
