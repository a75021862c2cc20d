"""Backends that an earlier run left in the maps, of clusters that have not spoken yet.

A cluster that cannot be reached must not lose its backends because the agent was restarted: until
it tells its services, what the maps say of it stands in for its offer.
"""

from collections.abc import Iterator

from agent.clusters import Clusters
from agent.services.adopt import Adopted
from agent.services.offers import Condition, Group, Offer, OfferedPort
from agent.services.program import Place
from bpf.layout_lb import BackendState, BackendValue


class Remnants:
    """By frontend and cluster id: what was offered there."""

    def __init__(self) -> None:
        self._offers: dict[Place, dict[int, tuple[Group, ...]]] = {}
        self.cluster_ids: set[int] = set()
        """Clusters of which there is something left."""

    @classmethod
    def of(cls, found: Adopted) -> "Remnants":
        """From what was read back."""
        remnants = cls()
        for place, program in found.programs.items():
            by_cluster: dict[int, list[Group]] = {}
            for number in program.backends:
                backend = found.backends.get(number)
                if backend is not None and backend.cluster_id:
                    by_cluster.setdefault(backend.cluster_id, []).append(_group(backend))
            if by_cluster:
                remnants._offers[place] = {c: tuple(groups) for c, groups in by_cluster.items()}
                remnants.cluster_ids |= by_cluster.keys()
        return remnants

    def at(self, place: Place, clusters: Clusters) -> Iterator[Offer]:
        """Offers for a frontend, beside what a checkpoint says: the maps may be newer than it."""
        for cluster_id, groups in self._offers.get(place, {}).items():
            yield Offer(clusters.name_of(cluster_id), cluster_id, groups)

    def forget(self, cluster_id: int) -> list[Place]:
        """The cluster has spoken, or is no more; frontends that had something of it."""
        if cluster_id not in self.cluster_ids:
            return []
        self.cluster_ids.discard(cluster_id)
        touched = [place for place, known in self._offers.items() if cluster_id in known]
        for place in touched:
            del self._offers[place][cluster_id]
            if not self._offers[place]:
                del self._offers[place]
        return touched


def _group(backend: BackendValue) -> Group:
    """An unnamed port matches whatever the frontend's is called."""
    leaving = backend.state == BackendState.TERMINATING
    return Group(
        ports=(OfferedPort("", backend.proto, backend.port),),
        condition=Condition.TERMINATING if leaving else Condition.ACTIVE,
        here=False,
        addresses=(backend.address,),
    )
