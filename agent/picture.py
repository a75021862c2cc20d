"""What the agent shows of its state: services with a reason for each backend, nodes, trouble."""

import time
from collections.abc import Iterator

from agent.addresses.addresses import Addresses
from agent.facts import Me
from agent.services.compose import guarded
from agent.services.merge import Verdict, mismatch
from agent.services.offers import PROTOCOL_NAMES, Condition, Group, Offer
from agent.services.program import Place
from agent.services.services import Services
from clustermesh.addresses import spelled
from clustermesh.local import Frontend, LocalService
from clustermesh.status import BackendStatus, NodeStatus, Refusal, ServiceStatus

MOST_REFUSALS = 200
"""Named in the status; more are only counted by the log."""


def told(place: Place) -> str:
    """``ip:port/PROTO``, and ``/i`` for clients inside where those outside have another."""
    inside = "/i" if place.scope else ""
    return f"{at(place.address, place.port)}/{PROTOCOL_NAMES[place.proto]}{inside}"


class Picture:
    """Answers from present facts; it changes nothing."""

    def __init__(self, me: Me, services: Services, addresses: Addresses) -> None:
        self._me = me
        self._services = services
        self._addresses = addresses
        self._since: dict[tuple[str, str], float] = {}

    def services(self) -> list[ServiceStatus]:
        """Every frontend of every service that is served, sorted by id."""
        found = []
        for name in self._services.facts.names():
            service = self._services.facts.local(name)
            if service is not None and self._services.serves(service):
                found += [
                    self._service(name, service, place, frontend)
                    for place, frontend in self._services.frontends(service).items()
                ]
        return sorted(found, key=lambda status: (status.id, status.frontend))

    def _service(
        self, name: str, service: LocalService, place: Place, frontend: Frontend
    ) -> ServiceStatus:
        verdicts = self._services.verdicts(name, service, place, frontend)
        backends = [self._backend(verdict) for verdict in verdicts]
        backends += self.left_out(name, place, frontend)
        return ServiceStatus(
            id=self._services.programs.id_at(place),
            namespace=service.namespace,
            name=service.name,
            frontend=told(place),
            is_global=service.is_global,
            shared=service.shared,
            affinity=service.affinity,
            source_ranges=service.load_balancer_source_ranges if guarded(service, frontend) else (),
            backends=tuple(backends),
        )

    def _backend(self, verdict: Verdict) -> BackendStatus:
        backend = verdict.backend
        return BackendStatus(
            id=self._services.programs.backend_id(backend),
            address=at(backend.address, backend.port),
            cluster=backend.cluster,
            state=backend.condition.name.lower().replace("_", "-"),
            used=verdict.weight > 0,
            why=verdict.why,
        )

    def left_out(self, name: str, place: Place, frontend: Frontend) -> Iterator[BackendStatus]:
        """Endpoints under the service's name that are not even candidates."""
        service = self._services.facts.local(name)
        for offer in self._services.facts.offers(name):
            for group in offer.groups:
                why = self._why_not(service, offer, group, place, frontend)
                for address in group.addresses if why else ():
                    if len(address) == len(place.address):
                        yield BackendStatus(
                            id=0, address=spelled(address), cluster=offer.cluster,
                            state=Condition(group.condition).name.lower(), used=False, why=why,
                        )  # fmt: skip

    def _why_not(
        self,
        service: LocalService | None,
        offer: Offer,
        group: Group,
        place: Place,
        frontend: Frontend,
    ) -> str:
        if offer.cluster_id and service is not None and not service.is_global:
            return "the service is not global in this cluster"
        if offer.cluster in self._services.held:
            return self._services.held[offer.cluster]
        return mismatch(frontend, place.proto, group)

    def nodes(self) -> list[NodeStatus]:
        """Every node of the mesh, sorted."""
        known = self._addresses.nodes.known.items()
        found = [
            NodeStatus(
                name=node.name,
                cluster=node.cluster,
                ipv4=node.underlay4,
                ipv4_cidrs=tuple(cidr for cidr in node.cidrs if ":" not in cidr),
                ipv6=node.underlay6,
                ipv6_cidrs=tuple(cidr for cidr in node.cidrs if ":" in cidr),
                overlay=node.overlay,
                source="local" if cluster == self._me.cluster else "clustermesh",
            )
            for cluster, _, node in known
        ]
        return sorted(found, key=lambda node: (node.cluster, node.name))

    def refusals(self) -> list[Refusal]:
        """Objects that are refused at present; ``since`` is when that was first asked."""
        now = time.time()
        reasons = dict(self._reasons())
        self._since = {key: self._since.get(key, now) for key in reasons.items()}
        return [
            Refusal(what=what, reason=reason, since=since)
            for (what, reason), since in list(self._since.items())[:MOST_REFUSALS]
        ]

    def _reasons(self) -> Iterator[tuple[str, str]]:
        for name, reason in self._services.facts.policies.refused.items():
            yield f"service {name}", f"{reason}; the last good policy stays"
        for name, reason in self._services.rivalries():
            yield f"service {name}", reason
        for (cluster, address), reason in self._addresses.refused.items():
            yield f"address {address} of {cluster}", reason
        for cluster, address, owner in self._addresses.rivalries():
            yield f"address {address} of {cluster}", f"{owner} has it, whose word goes before"
        for node in self._addresses.unreachable_nodes():
            yield f"node {node.cluster}/{node.name}", "IPAddresses: expected an IPv4 address"

    def trouble(self) -> list[str]:
        """What keeps the maps from being as the facts say."""
        found = [f"cluster {name}: {reason}" for name, reason in self._addresses.held.items()]
        found += [
            f"map {name} is full: {number} entries have no room; give it more (--map-entries)"
            for name, number in self._addresses.full().items()
        ]
        if self._addresses.host_routes.left_out:
            found.append(
                f"{self._addresses.host_routes.left_out} addresses outside of announced pod ranges "
                f"have no route: at most {self._addresses.host_routes.most} may have one "
                "(--host-routes)"
            )
        reasons = self._services.retries.reasons()
        found += [f"service {name}: {reason}" for name, reason in sorted(reasons.items())]
        return found


def at(address: bytes, port: int) -> str:
    """``ip:port``, IPv6 in brackets."""
    text = spelled(address)
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"
