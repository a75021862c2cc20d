"""Backends that an earlier run left in the maps, of clusters that have not spoken yet.

A cluster that cannot be reached must not lose its backends because the agent was restarted: until
it tells its services, what the maps say of it stands in for its offer. It also goes before what a
checkpoint says, which was written after the maps: what came or went last, only they know.
"""

from collections.abc import Callable, Iterable

from agent.clusters import Clusters
from agent.services.adopt import Adopted
from agent.services.offers import Condition, Group, Offer, OfferedPort
from agent.services.program import Place
from bpf.layout_lb import BackendState, BackendValue


class Remnants:
    """By frontend and cluster id: what was offered there."""

    def __init__(self) -> None:
        self._offers: dict[Place, dict[int, tuple[Group, ...]]] = {}
        self._torn: set[Place] = set()
        """Frontends that an interrupted run left half-made: backends may be missing there."""
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
                if not program.whole:
                    remnants._torn.add(place)
        return remnants

    def beside(
        self,
        known: Iterable[Offer],
        place: Place,
        clusters: Clusters,
        *,
        remembered: Callable[[str], bool],
    ) -> list[Offer]:
        """The offers for a frontend: what is known, and what is left of clusters that have not
        spoken. ``remembered``: whether all that is known of a cluster is a checkpoint's word."""
        offers, left = list(known), dict(self._offers.get(place, {}))
        if not left:
            return offers
        for offer in offers:
            if offer.cluster_id in left and not remembered(offer.cluster):
                del left[offer.cluster_id]
        if place not in self._torn:
            offers = [offer for offer in offers if offer.cluster_id not in left]
        return [*offers, *(Offer(clusters.name_of(it), it, left[it]) for it in left)]

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
