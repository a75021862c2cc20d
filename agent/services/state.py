"""The facts about services: what the own cluster says of each, and what every cluster offers."""

from collections.abc import Iterable, Iterator, Sequence

from agent.facts import AnyKind, Change, Me
from agent.services import offers
from agent.services.compose import only_here
from agent.services.merge import Consumer
from agent.services.offers import Offer
from agent.services.policies import Policies
from clustermesh.keys import Kind
from clustermesh.local import Frontend, LocalService
from clustermesh.model import ClusterService, EndpointSlice


class ServiceFacts:
    """Facts by service name (``namespace/name``). Each change returns the names it touches."""

    def __init__(self, me: Me) -> None:
        self._me = me
        self._local: dict[str, LocalService] = {}
        self._own: dict[str, Offer] = {}
        self._offers: dict[str, dict[str, Offer]] = {}
        """By service, then cluster."""
        self._slices: dict[str, dict[str, EndpointSlice]] = {}
        """By cluster, then slice name."""
        self._slices_of: dict[tuple[str, str], dict[str, EndpointSlice]] = {}
        """By cluster and service, then slice name."""
        self.policies = Policies(me.cluster)
        self._stale: dict[str, set[str]] = {}
        """By cluster (the own one included): names that the present full list has not repeated."""

    # -- told --------------------------------------------------------------------------------

    def apply_local(self, changes: Sequence[Change]) -> set[str]:
        """The own cluster's services."""
        repeated = self._stale.get(self._me.cluster, set())
        for name, fact in changes:
            repeated.discard(name)
            if isinstance(fact, LocalService):
                self._put_local(name, fact)
            else:
                self._drop_local(name)
        return {name for name, _ in changes}

    def _put_local(self, name: str, service: LocalService) -> None:
        self._local[name] = service
        self._own[name] = offers.of_local(service, cluster=self._me.cluster, node=self._me.node)
        self.policies.put(name, service)

    def _drop_local(self, name: str) -> None:
        self._local.pop(name, None)
        self._own.pop(name, None)
        self.policies.drop(name)

    def apply_services(self, cluster: str, changes: Sequence[Change]) -> set[str]:
        """A remote cluster's services in their JSON form."""
        repeated = self._stale.get(cluster, set())
        touched = set()
        for name, fact in changes:
            repeated.discard(name)
            offer = offers.of_remote(fact) if isinstance(fact, ClusterService) else None
            if self._offer(cluster, name, offer):
                touched.add(name)
        return touched

    def apply_slices(self, cluster: str, changes: Sequence[Change]) -> set[str]:
        """A remote cluster's services as EndpointSlices."""
        repeated = self._stale.get(cluster, set())
        services = set()
        for name, fact in changes:
            repeated.discard(name)
            services.add(self._drop_slice(cluster, name))
            if isinstance(fact, EndpointSlice):
                services.add(self._put_slice(cluster, name, fact))
        return {name for name in services if name and self._reassemble(cluster, name)}

    def _put_slice(self, cluster: str, name: str, slice_: EndpointSlice) -> str:
        service = offers.service_of(slice_)
        self._slices.setdefault(cluster, {})[name] = slice_
        self._slices_of.setdefault((cluster, service), {})[name] = slice_
        return service

    def _drop_slice(self, cluster: str, name: str) -> str:
        before = self._slices.get(cluster, {}).pop(name, None)
        if before is None:
            return ""
        service = offers.service_of(before)
        siblings = self._slices_of[cluster, service]
        del siblings[name]
        if not siblings:
            del self._slices_of[cluster, service]
        return service

    def _reassemble(self, cluster: str, service: str) -> bool:
        slices = self._slices_of.get((cluster, service), {})
        return self._offer(cluster, service, offers.of_slices([slices[n] for n in sorted(slices)]))

    def _offer(self, cluster: str, name: str, offer: Offer | None) -> bool:
        """Whether it is news."""
        known = self._offers.get(name, {})
        if known.get(cluster) == offer:
            return False
        if offer is not None:
            self._offers.setdefault(name, known)[cluster] = offer
        else:
            del known[cluster]
            if not known:
                del self._offers[name]
        return True

    def doubt(self, cluster: str) -> None:
        """Everything of the cluster may have changed unseen."""
        if cluster == self._me.cluster:
            self._stale[cluster] = set(self._local)
        else:
            self._stale[cluster] = set(self._names(cluster)) | set(self._slices.get(cluster, ()))

    def confirm(self, cluster: str, kind: AnyKind) -> set[str]:
        """A full list has been told: what it did not repeat is gone."""
        gone: list[Change] = [(name, None) for name in self._stale.pop(cluster, ())]
        if cluster == self._me.cluster:
            touched = self.apply_local(gone)
            self.policies.sweep(self._local.keys())
            return touched
        if kind is Kind.ENDPOINT_SLICES:
            touched = self.apply_slices(cluster, gone)
            # What was offered in the other format goes, too; a slice may have a service's name.
            return touched | {
                it for it in list(self._names(cluster)) if self._reassemble(cluster, it)
            }
        for name in list(self._slices.get(cluster, ())):
            self._drop_slice(cluster, name)
        return self.apply_services(cluster, gone)

    def drain(self, cluster: str) -> set[str]:
        """Nothing of the cluster is known any more."""
        self._stale.pop(cluster, None)
        for name in list(self._slices.get(cluster, ())):
            self._drop_slice(cluster, name)
        self._slices.pop(cluster, None)
        return {name for name in list(self._names(cluster)) if self._offer(cluster, name, None)}

    # -- asked ---------------------------------------------------------------------------------

    def names(self) -> Iterable[str]:
        """Services of the own cluster."""
        return self._local.keys()

    def local(self, name: str) -> LocalService | None:
        """What the own cluster says of a service."""
        return self._local.get(name)

    def offers(self, name: str) -> Iterator[Offer]:
        """What every cluster offers, the own one first."""
        if name in self._own:
            yield self._own[name]
        yield from self._offers.get(name, {}).values()

    def is_remembered(self, cluster: str, name: str) -> bool:
        """Whether a cluster has said nothing of a service since its word was doubted."""
        stale = self._stale.get(cluster, ())
        slices = self._slices_of.get((cluster, name), (name,))
        return all(it in stale for it in slices)

    def consumer(
        self, service: LocalService, name: str, frontend: Frontend, scope: int = 0
    ) -> Consumer:
        """How the own cluster wants to use the service at this frontend, in this scope of it."""
        return Consumer(
            is_global=service.is_global,
            affinity=service.affinity,
            only_here=only_here(service, frontend, scope),
            policy=self.policies.of(name),
        )

    def with_offers_of(self, cluster: str) -> set[str]:
        """Services of which the cluster offers backends."""
        return set(self._names(cluster))

    def count(self, cluster: str) -> int:
        """How many services a cluster has told."""
        return (
            len(self._local) if cluster == self._me.cluster else len(self.with_offers_of(cluster))
        )

    def count_slices(self, cluster: str) -> int:
        """How many slices a cluster has told."""
        return len(self._slices.get(cluster, ()))

    def _names(self, cluster: str) -> Iterator[str]:
        return (name for name, known in self._offers.items() if cluster in known)
