"""What clusters offer under a service's name, in one compact shape whatever it was written in.

Endpoints with the same ports and condition share a group, so an offer costs about fifty bytes for
each of its addresses.
"""

from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from functools import lru_cache
from sys import intern
from typing import Final, NamedTuple

from bpf.layout_lb import BackendState
from clustermesh.addresses import packed
from clustermesh.local import LocalBackend, LocalService
from clustermesh.model import ClusterService, EndpointSlice, Port, SliceEndpoint

PROTOCOLS: Final = {"TCP": 6, "UDP": 17, "SCTP": 132}
PROTOCOL_NAMES: Final = {number: name for name, number in PROTOCOLS.items()}

SERVICE_LABEL: Final = "kubernetes.io/service-name"


class Condition(IntEnum):
    """What may become of an endpoint. NOT_READY is known, and counts, but is never used."""

    ACTIVE = BackendState.ACTIVE
    TERMINATING = BackendState.TERMINATING
    NOT_READY = 4


_ACTIVE: Final = Condition.ACTIVE


class OfferedPort(NamedTuple):
    """A target port under the name of its service port, empty when that has none."""

    name: str
    proto: int
    port: int


class Group(NamedTuple):
    """Endpoints that differ by address only; ``here``: they run on this node."""

    ports: tuple[OfferedPort, ...]
    condition: Condition
    here: bool
    addresses: tuple[bytes, ...]


class Offer(NamedTuple):
    """The endpoints of one cluster under one service name. Cluster id 0: this cluster's own."""

    cluster: str
    cluster_id: int
    groups: tuple[Group, ...]

    @property
    def size(self) -> int:
        """How many addresses."""
        return sum(len(group.addresses) for group in self.groups)


_Shape = tuple[tuple[OfferedPort, ...], Condition, bool]


def _offer(cluster: str, cluster_id: int, endpoints: Iterable[tuple[_Shape, bytes]]) -> Offer:
    """Groups in a fixed order: equal endpoints make equal offers. Of an address and port that is
    in several, the copy in the better condition comes first."""
    shapes: dict[_Shape, set[bytes]] = {}
    for shape, address in endpoints:
        shapes.setdefault(shape, set()).add(address)
    groups = (Group(*shape, tuple(sorted(members))) for shape, members in shapes.items())
    return Offer(cluster, cluster_id, tuple(sorted(groups, key=_best_first)))


def _best_first(group: Group) -> tuple[Condition, Group]:
    return group.condition, group


def of_local(service: LocalService, *, cluster: str, node: str) -> Offer:
    """The own cluster's endpoints (contract datapath 3.9 for conditions)."""
    return _offer(cluster, 0, _local_endpoints(service.backends, node))


def _local_endpoints(backends: Sequence[LocalBackend], node: str) -> Iterator[tuple[_Shape, bytes]]:
    for backend in backends:
        named = ((port.name, port.protocol, port.port) for port in backend.ports)
        condition = _condition(
            ready=backend.ready, serving=backend.serving, terminating=backend.terminating
        )
        yield (_ports(named), condition, backend.node == node), packed(backend.address)


def _condition(*, ready: bool, serving: bool, terminating: bool) -> Condition:
    if ready:
        return Condition.ACTIVE
    if not serving:
        return Condition.NOT_READY
    return Condition.TERMINATING if terminating else Condition.ACTIVE


def of_remote(service: ClusterService) -> Offer | None:
    """A remote cluster's endpoints, all active: this format has no other state (contract kvstore
    2.5). None when not shared."""
    if not service.shared:
        return None
    groups: dict[tuple[OfferedPort, ...], set[bytes]] = {}
    before: dict[str, Port] | None = None
    members: set[bytes] = set()
    for address, ports in service.backends.items():
        if ports != before:  # mostly all have the same
            members = groups.setdefault(_shape(tuple(ports.items())), set())
            before = ports
        members.add(packed(address))
    offered = [
        Group._make((shape, _ACTIVE, False, tuple(sorted(members))))
        for shape, members in groups.items()
    ]
    offered.sort()
    return Offer._make((intern(service.cluster), service.cluster_id, tuple(offered)))


def of_slices(slices: Sequence[EndpointSlice]) -> Offer | None:
    """The endpoints of a service that comes as slices of one cluster, in the conditions that they
    tell, which count like those of local endpoints (contract kvstore 2.7)."""
    if not slices:
        return None
    first = slices[0]
    endpoints = (found for slice_ in slices for found in _slice_endpoints(slice_))
    return _offer(first.cluster, first.cluster_id, endpoints)


def _slice_endpoints(slice_: EndpointSlice) -> Iterator[tuple[_Shape, bytes]]:
    named = ((p.name, p.protocol, p.port & 0xFFFF) for p in slice_.ports if p.port is not None)
    ports = _ports(named)  # of a number that is none the peer takes the last 16 bits, too
    for endpoint in slice_.endpoints:
        condition = _told_condition(endpoint)
        if condition is not Condition.NOT_READY:
            for address in endpoint.addresses:
                yield (ports, condition, False), packed(address)


def _told_condition(endpoint: SliceEndpoint) -> Condition:
    """What is not known of an endpoint counts as Kubernetes defines it: it is ready, serves if it
    is ready, and does not terminate."""
    ready = endpoint.ready is not False
    serving = ready if endpoint.serving is None else endpoint.serving
    return _condition(ready=ready, serving=serving, terminating=bool(endpoint.terminating))


def service_of(slice_: EndpointSlice) -> str:
    """The ``namespace/name`` of the service a slice belongs to, empty when it names none."""
    name = slice_.labels.get(SERVICE_LABEL, "")
    return f"{slice_.namespace}/{name}" if name else ""


@lru_cache(maxsize=1024)
def _shape(ports: tuple[tuple[str, Port], ...]) -> tuple[OfferedPort, ...]:
    """Ports of a backend. There are few sorts of them, which many thousand services share."""
    return _ports((name, port.protocol, port.port) for name, port in ports)


def _ports(named: Iterable[tuple[str, str, int]]) -> tuple[OfferedPort, ...]:
    """Sorted; ports of other protocols, and port 0, have no place in the maps."""
    return tuple(
        sorted(
            OfferedPort(name, PROTOCOLS[protocol], port)
            for name, protocol, port in named
            if protocol in PROTOCOLS and port > 0
        )
    )
