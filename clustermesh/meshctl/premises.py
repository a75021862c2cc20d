"""What may keep clusters from being one mesh, judged from what their agents say of them. [pure]"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import combinations
from typing import NamedTuple

from clustermesh.findings import Finding, Premises, Result
from clustermesh.meshfile import Cluster, Mesh
from clustermesh.status import ApiserverStatus

Network = IPv4Network | IPv6Network


class Side(NamedTuple):
    """A cluster of the mesh file and what its processes say, or why they do not."""

    cluster: Cluster
    apiserver: ApiserverStatus | str
    nodes: Mapping[str, Premises | str]
    declared: Premises | None = None
    """What its Kubernetes says of all its nodes, where that can be asked."""

    @property
    def known(self) -> list[Premises]:
        """What its agents say and what its Kubernetes says."""
        return [*self.heard, *([self.declared] if self.declared is not None else [])]

    @property
    def heard(self) -> list[Premises]:
        return [found for found in self.nodes.values() if isinstance(found, Premises)]


def judge(mesh: Mesh, chosen: Sequence[Side], third: Sequence[Side]) -> Iterator[Finding]:
    """Findings about the ``chosen`` clusters, and about them with ``third`` members."""
    for side in chosen:
        yield from _answers(side)
        yield from _names(mesh, side)
        yield from _sizes(mesh, side)
    yield from _versions(chosen)
    yield from _overlaps(chosen, third)


def _answers(side: Side) -> Iterator[Finding]:
    name = side.cluster.name
    unasked = [node.name for node in side.cluster.nodes if not node.agent]
    if not side.cluster.apiserver:
        unasked.insert(0, "its apiserver")
    if unasked:
        yield Finding(
            code="UNASKED",
            result=Result.WARNING,
            where=name,
            seen=f"no API can be asked of {', '.join(unasked)}",
            fix="give the mesh file its URL; in Kubernetes get the right to get and create"
            " pods/exec in its namespace; Cilium's have no API",
        )
    if not side.cluster.apiserver:
        pass
    elif isinstance(side.apiserver, str):
        seen = f"its apiserver: {side.apiserver}"
        yield _failed("APISERVER_SILENT", name, seen, "start clustermesh-apiserver; see its log")
    elif not side.apiserver.ready:
        seen = "its apiserver is not ready: " + "; ".join(side.apiserver.trouble)
        yield _failed("APISERVER_NOT_READY", name, seen, "mend that first: meshctl status")
    else:
        yield _ok("APISERVER", name, f"ready, {sum(side.apiserver.keys.values())} facts published")
    silent = {node: why for node, why in side.nodes.items() if isinstance(why, str)}
    for node, why in silent.items():
        yield _failed(
            "AGENT_SILENT", node, f"its agent: {why}", "start clustermesh-agent on it; see its log"
        )
    if side.nodes and not silent:
        yield _ok("AGENTS", name, f"{len(side.nodes)} answer")


def _names(mesh: Mesh, side: Side) -> Iterator[Finding]:
    cluster, wrong = side.cluster, False
    said = {}
    if isinstance(side.apiserver, ApiserverStatus):
        said["its apiserver"] = (side.apiserver.cluster, side.apiserver.cluster_id)
    said |= {
        f"its agent on {found.node}": (found.cluster, found.cluster_id) for found in side.heard
    }
    for who, (name, number) in said.items():
        if name != cluster.name:
            wrong = True
            seen = f"{who} says that the cluster's name is {name}"
            yield _failed("NAME_MISMATCH", cluster.name, seen, "correct the mesh file, or the flag")
        if number != cluster.id:
            wrong = True
            seen = f"{who} says id {number}, the mesh file {cluster.id}"
            yield _failed("ID_MISMATCH", cluster.name, seen, "correct the mesh file, or the flag")
    if not 1 <= cluster.id <= mesh.max_connected_clusters:
        wrong = True
        seen = f"id {cluster.id} is not within 1 to {mesh.max_connected_clusters}"
        yield _failed("ID_RANGE", cluster.name, seen, "give the cluster an id in this range")
    if not wrong:
        yield _ok("IDENTITY", cluster.name, f"id {cluster.id}, no other member has name or id")


def _sizes(mesh: Mesh, side: Side) -> Iterator[Finding]:
    wanted = mesh.max_connected_clusters
    wrong = [found for found in side.known if found.max_clusters != wanted]
    for found in wrong:
        seen = f"node {found.node} runs with {found.max_clusters} clusters, the mesh with {wanted}"
        fix = "start every agent and apiserver of the mesh with the same --max-connected-clusters"
        yield _failed("MAX_CLUSTERS", side.cluster.name, seen, fix)
    if side.known and not wrong:
        yield _ok("MAX_CLUSTERS", side.cluster.name, f"{wanted}, as in the mesh")


def _versions(chosen: Sequence[Side]) -> Iterator[Finding]:
    found = sorted({p.version for side in chosen for p in side.heard})
    apiservers = (side.apiserver for side in chosen)
    found = sorted({*found, *(a.version for a in apiservers if not isinstance(a, str))})
    where = ", ".join(side.cluster.name for side in chosen)
    minors = {_release(version) for version in found}
    if len({major for major, _ in minors}) > 1 or _spread(minors) > 1:
        seen = f"releases {', '.join(found)} are more than one minor release apart"
        yield _failed("VERSION_SKEW", where, seen, "bring the older ones up, one step at a time")
    elif len(minors) > 1:
        seen = f"releases {', '.join(found)}: one minor release apart is supported"
        yield Finding(code="VERSION_SKEW", result=Result.WARNING, where=where, seen=seen,
                      fix="finish the upgrade")  # fmt: skip
    elif found:
        yield _ok("VERSION", where, ", ".join(found))


def _release(version: str) -> tuple[int, int]:
    """Major and minor number; what is no number counts as 0."""
    parts = [*version.split("."), "", ""]
    major, minor = (int(part) if part.isdecimal() else 0 for part in parts[:2])
    return major, minor


def _spread(minors: Iterable[tuple[int, int]]) -> int:
    numbers = [minor for _, minor in minors]
    return max(numbers) - min(numbers) if numbers else 0


def _overlaps(chosen: Sequence[Side], third: Sequence[Side]) -> Iterator[Finding]:
    """Between every two clusters of which one is chosen."""
    for one, other in combinations([*chosen, *third], 2):
        if one in third or not (one.known and other.known):
            continue
        where = f"{one.cluster.name} and {other.cluster.name}"
        wrong = [*_pods(where, one, other), *_hosts(where, one, other), *_hosts(where, other, one)]
        yield from wrong
        if not wrong:
            yield _ok("RANGES", where, "pod ranges, nodes and services keep out of each other")


def _pods(where: str, one: Side, other: Side) -> Iterator[Finding]:
    for left in _ranges(one):
        for right in _ranges(other):
            if left.version == right.version and left.overlaps(right):
                seen = f"pod range {left} of {one.cluster.name} overlaps {right}"
                fix = "give one cluster other pod ranges: overlapping ones cannot be one mesh"
                yield _failed("POD_CIDR_OVERLAP", where, f"{seen} of {other.cluster.name}", fix)


def _hosts(where: str, one: Side, other: Side) -> Iterator[Finding]:
    """Addresses of one cluster's nodes and services that the other has pods at, or nodes."""
    ranges = _ranges(other)
    theirs = {ip for found in other.known for ip in found.node_addresses}
    nodes = sorted({ip for found in one.known for ip in found.node_addresses})
    services = sorted({ip for found in one.known for ip in found.service_addresses})
    for ip in nodes:
        if ip in theirs and one.cluster.name < other.cluster.name:
            seen = f"{ip} is a node of both"
            yield _failed("NODE_ADDRESS_TAKEN", where, seen, "give each node its own address")
        for taken in _around(ip, ranges):
            seen = f"node {ip} of {one.cluster.name} lies in pod range {taken}"
            fix = "give one of the two other addresses: packets to the node would go to pods"
            yield _failed("NODE_IN_POD_CIDR", where, f"{seen} of {other.cluster.name}", fix)
    for ip in sorted({ip for found in other.known for ip in found.service_addresses} & {*nodes}):
        seen = f"node {ip} of {one.cluster.name} has the address of a service"
        fix = "choose another service range: connections to that node would go to the service"
        yield _failed("NODE_IS_SERVICE", where, f"{seen} of {other.cluster.name}", fix)
    for ip in services:
        for taken in _around(ip, ranges):
            seen = f"service {ip} of {one.cluster.name} lies in pod range {taken}"
            fix = "choose another service range: that pod could not be reached from there"
            yield _failed("SERVICE_IN_POD_CIDR", where, f"{seen} of {other.cluster.name}", fix)


def _ranges(side: Side) -> list[Network]:
    return [ip_network(text) for text in sorted({r for p in side.known for r in p.pod_ranges})]


def _around(ip: str, ranges: Sequence[Network]) -> Iterator[Network]:
    single = ip_network(ip)
    return (it for it in ranges if it.version == single.version and single.overlaps(it))


def _ok(code: str, where: str, seen: str) -> Finding:
    return Finding(code=code, result=Result.OK, where=where, seen=seen)


def _failed(code: str, where: str, seen: str, fix: str) -> Finding:
    return Finding(code=code, result=Result.FAILED, where=where, seen=seen, fix=fix)
