"""What must be known of each frontend: its endpoints in their three roles, and the table [pure].

A frontend is an address and port that a client connects to. Its endpoints serve, or stand by
(ready, but held back by a rule), or are parked (on their way out: they keep what they have).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Final, NamedTuple

import msgspec

from agent.audit.reading import Told
from agent.audit.sharing import (
    ACTIVE,
    LOCAL,
    NOT_READY,
    TERMINATING,
    Endpoint,
    Misspelt,
    Wish,
    shares,
    wish,
)
from clustermesh.addresses import packed, prefix
from clustermesh.keys import Kind
from clustermesh.local import Frontend, LocalBackend, LocalService, Scope
from clustermesh.model import EndpointSlice

PROTOCOLS: Final = {"TCP": 6, "UDP": 17, "SCTP": 132}
LONGEST_AFFINITY: Final = 0xFFFFFF
STICKY: Final = 0x0010
ONLY_HERE: Final = 0x1000
OUTSIDE_HERE: Final = 0x0004
TWO_SCOPES: Final = 0x2000
GUARDED: Final = 0x0080
"""Flags of a master (contract datapath 1.3)."""
SERVICE_LABEL: Final = "kubernetes.io/service-name"

Named = tuple[str, int, int]
"""Name, protocol and number of a port that an endpoint listens on."""

CONDITIONS: Final = (ACTIVE, TERMINATING, NOT_READY)


class At(NamedTuple):
    """Where a frontend is."""

    address: bytes
    port: int
    proto: int
    scope: int = 0
    """1: for clients inside, where those outside have one of their own (contract datapath 1.3)."""


KINDS: Final[Mapping[str, int]] = {
    Scope.CLUSTER_IP: 0,
    Scope.EXTERNAL_IP: 0x0041,
    Scope.LOAD_BALANCER: 0x0060,
    Scope.NODE_PORT: 0x0002,
}
"""Flags by the kind of address (contract datapath 1.3): what it is, and that it is routable."""


Clients = tuple[int, bytes]
"""Bits and address of a source range."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """One frontend as it must be."""

    at: At
    service: str
    flags: int
    timeout: int
    clients: frozenset[Clients] = frozenset()
    serving: Mapping[Endpoint, Fraction]
    standby: frozenset[Endpoint] = frozenset()
    parked: frozenset[Endpoint] = frozenset()

    @property
    def roles(self) -> tuple[frozenset[Endpoint], ...]:
        """Serving, standby, parked."""
        return frozenset(self.serving), self.standby, self.parked


class Frontends(msgspec.Struct):
    """All of them, and services of which it cannot be told, with the reason."""

    wanted: dict[At, Wanted] = {}
    unknown: dict[str, str] = {}
    places: set[At] = set()
    """Of services that cannot be told: whatever is there may be right."""


class Circumstances(NamedTuple):
    """What decides beside the facts: how the agent was started, and what its probes found."""

    every_service: bool
    node: str
    unreachable: frozenset[str] = frozenset()


class Offer(NamedTuple):
    """One address that a cluster offers under a service's name."""

    cluster_id: int
    ports: tuple[Named, ...]
    condition: str
    address: bytes
    cluster: str
    here: bool = False

    def order(self) -> tuple[object, ...]:
        """Of two that offer the same address and port the first one counts."""
        return self.cluster_id, CONDITIONS.index(self.condition), self.ports, self.here


def frontends(
    own: Told,
    remotes: Sequence[Told],
    given: Circumstances,
    present: Mapping[At, Sequence[Endpoint]],
) -> Frontends:
    """``present``: endpoints in the maps of clusters that could not be read; they stay."""
    found = Frontends()
    offered, unreadable = _offered(remotes), _unreadable((own, *remotes))
    for name in sorted(own.services):
        service = own.services[name]
        if not (service.is_global or given.every_service):
            continue
        places = list(_places(service, outside=given.every_service))
        places = [(at, it) for at, it in places if at not in found.wanted.keys() | found.places]
        try:
            why = unreadable.get(name) or unreadable.get(service.namespace, "")
            asked = _wish(service, own.cluster, why)
        except Misspelt as reason:
            found.unknown[name] = str(reason)
            found.places.update(at for at, _ in places)
            continue
        offers = [*_own_offers(service, given.node)]
        offers += offered.get(name, []) if service.is_global else []
        for at, frontend in places:
            known = _candidates(at, frontend.name, offers)
            known += _others(known, present.get(at, ()) if service.is_global else ())
            wanted = _wanted(
                at, name, service, known, _by_scope(asked, service, at, frontend), given
            )
            flags = wanted.flags | KINDS[frontend.scope]
            if frontend.scope == Scope.CLUSTER_IP:
                flags |= ONLY_HERE if asked.only_here else 0
            elif service.external_traffic_policy == "Local":
                flags |= OUTSIDE_HERE | TWO_SCOPES
            clients: frozenset[Clients] = frozenset()
            if frontend.scope == Scope.LOAD_BALANCER and service.load_balancer_source_ranges:
                flags |= GUARDED
                clients = frozenset(_clients(service, len(at.address)))
            found.wanted[at] = msgspec.structs.replace(wanted, flags=flags, clients=clients)
    return found


def _clients(service: LocalService, size: int) -> Iterator[Clients]:
    """Source ranges of the family whose addresses have this size."""
    for text in service.load_balancer_source_ranges:
        address, bits = prefix(text.strip())
        if address and len(packed(address)) == size:
            yield bits, packed(address)


def _by_scope(asked: Wish, service: LocalService, at: At, frontend: Frontend) -> Wish:
    """The internal policy is for the service's own address; at the others clients inside get any
    endpoint, and those outside what the external policy says."""
    if frontend.scope == Scope.CLUSTER_IP:
        return asked
    local = service.external_traffic_policy == "Local" and at.scope == 0
    return asked._replace(only_here=local)


def _wish(service: LocalService, own: str, unreadable: str) -> Wish:
    if unreadable:
        raise Misspelt(unreadable)
    return wish(
        service.annotations,
        own=own,
        affinity=service.affinity,
        only_here=service.internal_traffic_policy == "Local",
    )


def _wanted(
    at: At,
    name: str,
    service: LocalService,
    known: Sequence[Endpoint],
    asked: Wish,
    given: Circumstances,
) -> Wanted:
    serving = shares(known, asked, given.unreachable)
    spare = [it for it in known if it not in serving]
    sticky = STICKY if service.session_affinity_seconds else 0
    return Wanted(
        at=at,
        service=name,
        flags=sticky,
        timeout=min(service.session_affinity_seconds, LONGEST_AFFINITY),
        serving=serving,
        standby=frozenset(it for it in spare if it.condition == ACTIVE),
        parked=frozenset(it for it in spare if it.condition == TERMINATING),
    )


def _places(service: LocalService, *, outside: bool) -> Iterator[tuple[At, Frontend]]:
    """Cluster addresses, and in place of kube-proxy those for clients outside of the cluster, by
    protocols that have ports. A node port's address is the unspecified one of each family."""
    cluster = [packed(it.address) for it in service.frontends if it.scope == Scope.CLUSTER_IP]
    for frontend in service.frontends:
        proto = PROTOCOLS.get(frontend.protocol, 0)
        if not (proto and frontend.port) or frontend.scope not in KINDS:
            continue
        if frontend.scope == Scope.NODE_PORT:
            addresses = {bytes(len(it)) for it in cluster}
        else:
            addresses = {packed(frontend.address)}
        own_address = frontend.scope == Scope.CLUSTER_IP
        parted = not own_address and service.external_traffic_policy == "Local"
        for address in addresses if outside or own_address else ():
            for scope in range(2 if parted else 1) if address else ():
                yield At(address, frontend.port, proto, scope), frontend


# --- who offers what -----------------------------------------------------------------------------


def _own_offers(service: LocalService, node: str) -> Iterator[Offer]:
    for it in service.backends:
        ports = _ports((port.name, port.protocol, port.port) for port in it.ports)
        yield Offer(0, ports, _condition(it), packed(it.address), LOCAL, here=it.node == node)


def _condition(backend: LocalBackend) -> str:
    if backend.ready or (backend.serving and not backend.terminating):
        return ACTIVE
    return TERMINATING if backend.serving else NOT_READY


def _offered(remotes: Iterable[Told]) -> dict[str, list[Offer]]:
    """By service. What does not want to be shared is as good as not there."""
    found: dict[str, list[Offer]] = {}
    for told in remotes:
        for name, service in told.offers.items():
            for address, named in service.backends.items() if service.shared else ():
                ports = _ports((key, port.protocol, port.port) for key, port in named.items())
                offer = Offer(told.cluster_id, ports, ACTIVE, packed(address), told.cluster)
                found.setdefault(name, []).append(offer)
        for slice_ in told.slices.values():
            name = f"{slice_.namespace}/{slice_.labels.get(SERVICE_LABEL, '')}"
            found.setdefault(name, []).extend(_of_slice(slice_, told))
    return found


def _of_slice(slice_: EndpointSlice, told: Told) -> Iterator[Offer]:
    """Ready, or serving until they end; unknown counts as ready (contract kvstore 2.7)."""
    ports = _ports((it.name, it.protocol, (it.port or 0) % 65536) for it in slice_.ports)
    for endpoint in slice_.endpoints:
        if endpoint.ready is not False or endpoint.serving:
            leaving = endpoint.ready is False and endpoint.terminating
            condition = TERMINATING if leaving else ACTIVE
            for address in endpoint.addresses:
                yield Offer(told.cluster_id, ports, condition, packed(address), told.cluster)


def _ports(named: Iterable[tuple[str, str, int]]) -> tuple[Named, ...]:
    known = ((name, PROTOCOLS.get(proto, 0), port) for name, proto, port in named)
    return tuple(sorted(it for it in known if it[1] and it[2]))


def _candidates(at: At, name: str, offers: Iterable[Offer]) -> list[Endpoint]:
    """Same family and protocol, and the same port name where both have one (contract 6.2)."""
    found: dict[tuple[bytes, int], Endpoint] = {}
    for it in sorted(offers, key=Offer.order):
        if len(it.address) == len(at.address):
            for port in {port for _, proto, port in it.ports if proto == at.proto}:
                names = {n for n, proto, p in it.ports if (proto, p) == (at.proto, port) and n}
                if not name or not names or name in names:
                    endpoint = Endpoint(
                        it.address, port, at.proto, it.cluster_id, it.cluster, it.condition, it.here
                    )
                    found.setdefault((it.address, port), endpoint)
    return list(found.values())


def _others(known: Sequence[Endpoint], present: Sequence[Endpoint]) -> list[Endpoint]:
    taken = {(it.address, it.port) for it in known}
    return [it for it in present if (it.address, it.port) not in taken]


def _unreadable(mesh: Iterable[Told]) -> dict[str, str]:
    """Services with a value that cannot be read, and why; whole namespaces where it is a slice's,
    which does not say by its key whose it is.
    """
    found = {}
    for told in mesh:
        for (what, name), reason in told.bad.items():
            whose = name.partition("/")[0] if what == Kind.ENDPOINT_SLICES else name
            found[whose] = f"{what} {name} of {told.cluster} cannot be read: {reason}"
    return found
