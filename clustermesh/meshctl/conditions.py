"""What nodes of two clusters need of each other: clocks, kernels, ports, sizes. [pure]"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Final

from clustermesh.findings import Finding, Premises, Result, Underlay
from clustermesh.meshctl.premises import Side

CLOCKS_APART: Final = 5.0
"""Seconds from which clocks are worth a warning."""
CLOCKS_WRONG: Final = 60.0
"""Seconds from which certificates and ages are judged wrongly."""


def judge(sides: Sequence[Side], skews: Mapping[str, float]) -> Iterator[Finding]:
    """``skews``: by node, how many seconds its clock is before ours."""
    yield from _clocks(sides, skews)
    for side in sides:
        yield from _kernels(side)
        yield from _node_ports(side)
        yield from _ports(side)
    for one, other in combinations(sides, 2):
        yield from _tunnels(one, other)
        yield from _sizes(one, other)
        yield from _endpoints(one, other)
    if any(side.known for side in sides):
        yield Finding(
            code="PLAINTEXT",
            result=Result.WARNING,
            where=", ".join(side.cluster.name for side in sides),
            seen="packets between the clusters are not encrypted by the mesh",
            fix="connect the underlays by a network that you trust, or that encrypts (WireGuard)",
        )


def _clocks(sides: Sequence[Side], skews: Mapping[str, float]) -> Iterator[Finding]:
    mine = {node: skews[node] for side in sides for node in side.nodes if node in skews}
    if not mine:
        return
    first, last = min(mine, key=mine.__getitem__), max(mine, key=mine.__getitem__)
    apart = mine[last] - mine[first]
    where = ", ".join(side.cluster.name for side in sides)
    if apart < CLOCKS_APART:
        yield Finding(
            code="CLOCKS", result=Result.OK, where=where, seen=f"less than {CLOCKS_APART:g} s apart"
        )
        return
    yield Finding(
        code="CLOCK_SKEW",
        result=Result.FAILED if apart >= CLOCKS_WRONG else Result.WARNING,
        where=f"{first} and {last}",
        seen=f"the clock of {last} is {apart:.0f} s before that of {first}",
        fix="let both follow a time server: certificates and ages are judged by these clocks",
    )


def _kernels(side: Side) -> Iterator[Finding]:
    wrong = [found for found in side.heard if found.lacking]
    for found in wrong:
        seen = f"Linux {found.kernel} of {found.node} lacks {', '.join(found.lacking)}"
        yield _failed("KERNEL_LACKS", side.cluster.name, seen, "boot a newer kernel on that node")
    releases = sorted({found.kernel for found in side.heard if found.kernel})
    if releases and not wrong:
        yield _ok("KERNEL", side.cluster.name, f"Linux {', '.join(releases)} has what is needed")


def _node_ports(side: Side) -> Iterator[Finding]:
    for found in side.heard:
        for port in found.node_ports_taken:
            seen = f"node port {port}: a process of node {found.node} listens there, too"
            fix = "give one of the two another port: connections to the node go to the service"
            yield _failed("NODE_PORT_TAKEN", side.cluster.name, seen, fix)


def _ports(side: Side) -> Iterator[Finding]:
    for found, underlay in _underlays(side):
        if underlay.taken_by and underlay.device_port != underlay.port:
            yield Finding(
                code="TUNNEL_PORT_TAKEN",
                result=Result.OK,
                where=f"{side.cluster.name}/{found.node}",
                seen=f"UDP {underlay.port} is that of {underlay.taken_by}: our device has"
                f" {underlay.device_port}, and packets of mesh nodes are led there",
            )


def _tunnels(one: Side, other: Side) -> Iterator[Finding]:
    where = _both(one, other)
    mine, theirs = ({(it.protocol, it.port) for _, it in _underlays(side)} for side in (one, other))
    if not (mine and theirs):
        return
    if len({protocol for protocol, _ in mine | theirs}) > 1:
        told = " and ".join(sorted({protocol for protocol, _ in mine | theirs}))
        seen = f"the nodes use {told}"
        fix = "let every cluster use VXLAN (Cilium: tunnelProtocol=vxlan)"
        yield _failed("TUNNEL_PROTOCOL", where, seen, fix)
    elif len(mine | theirs) > 1:
        told = ", ".join(str(port) for port in sorted({port for _, port in mine | theirs}))
        seen = f"the nodes use different UDP ports: {told}"
        fix = "give every node the same --tunnel-port (Cilium: tunnelPort)"
        yield _failed("TUNNEL_PORT", where, seen, fix)
    else:
        ((protocol, port),) = mine
        yield _ok("TUNNEL", where, f"{protocol}, UDP {port} on every node")


def _sizes(one: Side, other: Side) -> Iterator[Finding]:
    where = _both(one, other)
    found = {
        f"{side.cluster.name}/{premises.node}": underlay.mtu
        for side in (one, other)
        for premises, underlay in _underlays(side)
        if underlay.mtu
    }
    too_large = {
        f"{side.cluster.name}/{premises.node}": underlay
        for side in (one, other)
        for premises, underlay in _underlays(side)
        if underlay.underlay_mtu and underlay.mtu + overhead(underlay) > underlay.underlay_mtu
    }
    for node, underlay in too_large.items():
        seen = (
            f"the overlay's MTU {underlay.mtu} of {node} and {overhead(underlay)} bytes of headers"
            f" do not fit its link's {underlay.underlay_mtu}"
        )
        yield _failed("MTU_TOO_LARGE", node, seen, "leave out --mtu, or lower it")
    if len(set(found.values())) > 1:
        least, most = min(found, key=found.__getitem__), max(found, key=found.__getitem__)
        yield Finding(
            code="MTU_DIFFERS",
            result=Result.WARNING,
            where=where,
            seen=f"the overlay's MTU is {found[least]} on {least}, {found[most]} on {most}",
            fix=f"start every agent with --mtu {found[least]}, unless the way between them carries"
            " the larger packets (MTU_PATH tells)",
        )
    elif found and not too_large:
        yield _ok("MTU", where, f"{next(iter(found.values()))} on every overlay device")


def _endpoints(one: Side, other: Side) -> Iterator[Finding]:
    both = sorted(_servers(one) & _servers(other))
    for server in both:
        seen = f"{server} is given for the etcd of both"
        fix = "give each its own address, or its own port of the same address (NodePort)"
        yield _failed("ENDPOINT_TAKEN", _both(one, other), seen, fix)


def _servers(side: Side) -> set[str]:
    """Where the cluster's etcd is dialled: names are replaced by their addresses, where given."""
    aliases = side.cluster.host_aliases
    found = set()
    for endpoint in side.cluster.endpoints:
        host, _, port = endpoint.partition("://")[2].rpartition(":")
        found |= {f"{ip}:{port}" for ip in aliases.get(host, (host,))}
    return found


def overhead(underlay: Underlay) -> int:
    """Bytes that the overlay adds to a packet of this node (design: MTU)."""
    return 70 if ":" in underlay.node_ip else 50


def _underlays(side: Side) -> Iterator[tuple[Premises, Underlay]]:
    return ((it, it.underlay) for it in side.known if it.underlay is not None)


def _both(one: Side, other: Side) -> str:
    return f"{one.cluster.name} and {other.cluster.name}"


def _ok(code: str, where: str, seen: str) -> Finding:
    return Finding(code=code, result=Result.OK, where=where, seen=seen)


def _failed(code: str, where: str, seen: str, fix: str) -> Finding:
    return Finding(code=code, result=Result.FAILED, where=where, seen=seen, fix=fix)
