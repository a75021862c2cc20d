"""Each cluster's life: whether it is configured, its id, and which lists it has told in full."""

from collections.abc import Iterable, Iterator, Mapping

from agent.facts import AnyKind, LocalKind, Me
from clustermesh.keys import Kind

SERVICE_KINDS = frozenset({Kind.SERVICES, Kind.ENDPOINT_SLICES})
ADDRESS_KINDS = frozenset({Kind.NODES, Kind.IPS})


class Clusters:
    """The lives of all clusters, as ``agent.facts.Sink`` tells them."""

    def __init__(self, me: Me) -> None:
        self._me = me
        self._expected: frozenset[str] | None = None
        self._ids = {me.cluster: me.cluster_id}
        self._names = {me.cluster_id: me.cluster}
        self._remembered: dict[int, str] = {}
        """Names of an earlier run, by the ids that are in the maps."""
        self._synced: dict[str, set[AnyKind]] = {}
        self._excused: set[str] = set()
        """Nobody waits for these: they are known from an earlier run, or took too long."""
        self.own_services = False
        """Whether all services of the own cluster are known."""
        self.settled = False
        """Whether a service's backends are all known, as far as they can be now."""

    def expect(self, clusters: frozenset[str]) -> None:
        """The configured remote clusters."""
        self._expected = clusters - {self._me.cluster}
        self._review()

    def remember(self, names: Mapping[int, str]) -> None:
        """What an earlier run called the ids that are in the maps."""
        self._remembered = dict(names)

    def identify(self, cluster: str, cluster_id: int) -> None:
        """The cluster's id."""
        self._disremember(cluster, cluster_id)
        self._ids[cluster] = cluster_id
        self._names[cluster_id] = cluster

    def synced(self, cluster: str, kind: AnyKind) -> None:
        """A full list of the kind has been told, now or earlier in this life."""
        self._synced.setdefault(cluster, set()).add(kind)
        self._review()

    def excuse(self, cluster: str) -> None:
        """Others stop waiting for it."""
        self._excused.add(cluster)
        self._review()

    def forget(self, cluster: str) -> None:
        """Its life is over."""
        self._names.pop(self._ids.pop(cluster, 0), None)
        self._disremember(cluster, 0)
        self._synced.pop(cluster, None)
        self._excused.discard(cluster)
        self._review()

    def _disremember(self, cluster: str, cluster_id: int) -> None:
        """There is a newer word about the cluster, and about the id."""
        if self._remembered:
            self._remembered = {
                number: name
                for number, name in self._remembered.items()
                if number != cluster_id and name != cluster
            }

    def id_of(self, cluster: str) -> int:
        """The id of a cluster that has been identified, else 0."""
        return self._ids.get(cluster, 0)

    def expected(self) -> frozenset[str]:
        """The configured remote clusters, as far as they are known."""
        return self._expected if self._expected is not None else frozenset()

    @property
    def configuration_known(self) -> bool:
        """Whether it has been told which clusters are configured."""
        return self._expected is not None

    def name_of(self, cluster_id: int) -> str:
        """The cluster of this id, empty when there is none. As long as nobody has been identified
        by it, the one that an earlier run knew."""
        return self._names.get(cluster_id) or self._remembered.get(cluster_id, "")

    def names_of(self, cluster_ids: Iterable[int]) -> frozenset[str]:
        """The clusters of these ids, as far as they are known."""
        return frozenset(map(self.name_of, cluster_ids)) - {""}

    def _review(self) -> None:
        self.own_services = self.has(self._me.cluster, LocalKind.SERVICES)
        self.settled = self._expected is not None and next(self.missing(), None) is None

    def has(self, cluster: str, kind: AnyKind) -> bool:
        """Whether the cluster has told all of a kind."""
        return kind in self._synced.get(cluster, ())

    def awaits_nodes(self, cluster: str) -> bool:
        """Whether the cluster's first list of nodes is still being told."""
        return not self.has(cluster, Kind.NODES) and cluster not in self._excused

    def told_services(self, cluster: str) -> bool:
        """Whether the cluster has told all its services, in either format."""
        return not SERVICE_KINDS.isdisjoint(self._synced.get(cluster, ()))

    def told_addresses(self, cluster: str) -> bool:
        """Whether the cluster has told all its nodes and addresses."""
        return self._synced.get(cluster, set()) >= ADDRESS_KINDS

    def missing(self) -> Iterator[str]:
        """Who is still waited for: has not told all services, or not where their backends are."""
        if not self.own_services:
            yield self._me.cluster
        for cluster in sorted(self._expected or ()):
            told = self.told_services(cluster) and self.told_addresses(cluster)
            if not told and cluster not in self._excused:
                yield cluster

    def strange(self) -> Iterator[str]:
        """Who has not told all nodes and addresses yet and is still waited for."""
        for cluster in self._expected or ():
            if not self.told_addresses(cluster) and cluster not in self._excused:
                yield cluster

    def configured(self, cluster_id: int) -> bool:
        """Whether the id may belong to a configured cluster; True as long as that is not known."""
        if self._expected is None or not self._expected <= self._ids.keys():
            return True
        return cluster_id in {self._ids[cluster] for cluster in self._expected} or (
            cluster_id in (0, self._me.cluster_id)
        )
