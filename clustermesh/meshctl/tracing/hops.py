"""What two nodes hold, put in the order in which a packet meets it, and judged. [pure]"""

from collections.abc import Iterator
from typing import Final

import msgspec

from clustermesh.explanation import Candidate, Explanation
from clustermesh.tracing import Leg, Looked

LABELS: Final = 4
TITLES: Final = {
    "service": "Which backend:",
    "there": "The way there:",
    "back": "The way back:",
}


class Party(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """One end, as its own cluster's etcd has it; ``name`` is a pod's ``namespace/pod``."""

    cluster: str
    address: str
    name: str = ""
    identity: int = 0
    node: str = ""
    node_ip: str = ""

    @property
    def title(self) -> str:
        """How the operator writes it."""
        return f"{self.cluster}/{self.name or self.address}"

    def told(self) -> str:
        """Address, identity and node."""
        return f"{self.address}, identity {self.identity}, on {self.node or '?'} ({self.node_ip})"


class Hop(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """One thing that the packet meets; ``wrong`` is empty, or what is not as it has to be."""

    way: str
    where: str
    what: str
    found: str
    wrong: str = ""


class Trace(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """All of it. ``target`` is None for a service without a backend that is used."""

    source: Party
    target: Party | None
    service: str = ""
    hops: tuple[Hop, ...] = ()

    @property
    def broken(self) -> list[Hop]:
        """Where the way is not as it has to be."""
        return [hop for hop in self.hops if hop.wrong]


def service(view: Explanation) -> tuple[tuple[str, str] | None, list[Hop]]:
    """Cluster and address of the backend that is followed, and what the node says of all of them.

    A frontend of TCP is preferred; of its backends one of another cluster.
    """
    where = f"{view.cluster}/{view.node}"
    stories = sorted(view.frontends, key=lambda it: not it.frontend.endswith("/TCP"))
    if not stories:
        wrong = f"{view.cluster} has no such service, or it has no address"
        hop = Hop(way="service", where=where, what="frontend", found="none", wrong=wrong)
        return None, [hop]
    story = stories[0]
    held = story.held
    found = f"{story.frontend}: not in the maps"
    if held:
        found = f"{story.frontend}: id {held.id}, {held.count} of {held.slots} slots selected"
    wrong = "; ".join(story.wrong)
    hops = [Hop(way="service", where=where, what="services map", found=found, wrong=wrong)]
    used = [one for one in story.candidates if one.share]
    hops += [
        Hop(way="service", where=where, what="backend", found=_backend(one))
        for one in story.candidates
    ]
    if not used:
        wrong = "no backend can be used: a connection is refused, or passes to who served it before"
        hops.append(Hop(way="service", where=where, what="choice", found="none", wrong=wrong))
        return None, hops
    chosen = next((one for one in used if one.cluster != view.cluster), used[0])
    hops.append(Hop(way="service", where=where, what="followed here", found=chosen.address))
    return (chosen.cluster, chosen.address.rpartition(":")[0].strip("[]")), hops


def _backend(one: Candidate) -> str:
    place = f"id {one.id}, slot {one.slot}, {one.entries} table entries" if one.slot else one.why
    return f"{one.address} of {one.cluster}: {one.share:.0%} ({place or 'not used'})"


def way(name: str, one: Party, other: Party, here: Leg | str, there: Leg | str) -> tuple[Hop, ...]:
    """From ``one`` to ``other``; ``here`` and ``there``: what their nodes say, or why nothing."""
    if one.cluster == other.cluster:
        found = "both are of one cluster: its own network carries it, the mesh has no part in it"
        return (Hop(way=name, where=one.cluster, what="no mesh", found=found),)
    return (
        *_out(name, one, other, here),
        *_underlay(name, other, here),
        *_in(name, one, other, there, checked=not _native(here)),
    )


def _native(leg: Leg | str) -> bool:
    """Whether the node sends there without the tunnel (docs/datapath.md)."""
    return isinstance(leg, Leg) and bool(leg.way.gateway) and leg.way.device != leg.device


def _out(name: str, one: Party, other: Party, leg: Leg | str) -> Iterator[Hop]:
    where = f"{one.cluster}/{one.node or one.node_ip}"
    if isinstance(leg, str):
        yield Hop(way=name, where=where, what="agent", found="does not answer", wrong=leg)
        return
    way_ = leg.way
    found = f"dev {way_.device} table {way_.table} src {way_.source or '-'} mtu {way_.mtu}"
    wrong = way_.error and f"no route to {other.address}: {way_.error}"
    if not wrong and way_.device != leg.device and not way_.gateway:
        wrong = f"the route leads out of {way_.device}, not into the mesh's {leg.device}"
    yield Hop(
        way=name, where=where, what="route", found=found if not way_.error else "none", wrong=wrong
    )
    yield _destination(name, where, other, leg)
    yield _source(name, where, one, leg)


def _destination(name: str, where: str, other: Party, leg: Leg) -> Hop:
    it, wrong = leg.destination, ""
    if not it.found:
        wrong = f"there is no entry for {it.address}: dropped (no tunnel endpoint)"
    elif it.identity != other.identity:
        wrong = f"{other.cluster} says identity {other.identity}"
    elif it.tunnel_endpoint != other.node_ip:
        wrong = f"{other.cluster} says it is behind {other.node_ip}"
    found = (
        f"{it.address}: identity {it.identity}{_labels(it)}, behind {it.tunnel_endpoint or 'none'}"
    )
    return Hop(way=name, where=where, what="ipcache, destination", found=found, wrong=wrong)


def _source(name: str, where: str, one: Party, leg: Leg) -> Hop:
    it, wrong = leg.source, ""
    if not it.found:
        wrong = f"there is no entry for {it.address}: the packet goes out as 2 (world)"
    elif it.identity != one.identity:
        wrong = f"{one.cluster} says identity {one.identity}"
    found = f"{it.address}: identity {it.identity}{_labels(it)}, the VNI"
    return Hop(way=name, where=where, what="ipcache, source", found=found, wrong=wrong)


def _underlay(name: str, other: Party, leg: Leg | str) -> Iterator[Hop]:
    if isinstance(leg, str):
        return
    where = f"{leg.node_ip} > {leg.destination.tunnel_endpoint or other.node_ip}"
    if _native(leg):
        found = f"without the tunnel, by way of {leg.way.gateway}: no identity travels"
        yield Hop(way=name, where=where, what="underlay", found=found)
        return
    identity = leg.source.identity
    found = f"VXLAN over UDP, VNI {identity} (0x{identity:06x})"
    yield Hop(way=name, where=where, what="underlay", found=found)


def _in(name: str, one: Party, other: Party, leg: Leg | str, *, checked: bool) -> Iterator[Hop]:
    where = f"{other.cluster}/{other.node or other.node_ip}"
    if isinstance(leg, str):
        yield Hop(way=name, where=where, what="agent", found="does not answer", wrong=leg)
        return
    if checked:
        yield _admission(name, where, one, leg)
    way_ = leg.way
    wrong = way_.error and f"no route to {other.address}: {way_.error}"
    found = "none" if wrong else f"dev {way_.device} table {way_.table}"
    yield Hop(way=name, where=where, what="route to the pod", found=found, wrong=wrong)


def _admission(name: str, where: str, one: Party, leg: Leg) -> Hop:
    it = leg.admitted
    wrong, found = "", "not asked"
    if it is not None:
        found = f"{it.node}: cluster {it.cluster_id}, identities {it.low}-{it.high}"
        if not it.found:
            wrong = f"node {it.node} is not known here: its packets are dropped"
        elif not (it.low <= one.identity <= it.high or 2 <= one.identity <= 10):
            wrong = f"identity {one.identity} is not one of those: the packet is dropped"
    return Hop(way=name, where=where, what="nodes map, sender", found=found, wrong=wrong)


def _labels(it: Looked) -> str:
    """Those that people give; what Kubernetes adds says nothing new."""
    given = [one for one in it.labels if not one.startswith("k8s:io.")]
    return f" ({' '.join(given[:LABELS])})" if given else ""
