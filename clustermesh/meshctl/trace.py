"""``meshctl trace``: the way of a packet from a pod to a pod or service, entry by entry."""

from typing import Annotated

import typer

from clustermesh.explanation import Explanation
from clustermesh.meshctl import api, endpoints
from clustermesh.meshctl.context import MeshOption, open_mesh
from clustermesh.meshctl.endpoints import Endpoint
from clustermesh.meshctl.errors import Exit, MeshctlError
from clustermesh.meshctl.output import Format, Output, columns, say, show_json
from clustermesh.meshctl.tracing import hops
from clustermesh.meshctl.tracing.hops import Hop, Party, Trace
from clustermesh.meshfile import Cluster, Mesh, Node, full_name
from clustermesh.status import NodeStatus
from clustermesh.tracing import Leg

Pod = Annotated[str, typer.Argument(metavar="CLUSTER/NAMESPACE/POD", show_default=False)]
Target = Annotated[
    str,
    typer.Argument(
        metavar="CLUSTER/NAMESPACE/POD | NAMESPACE/SERVICE",
        help="A pod, or a service as the source's cluster has it.",
        show_default=False,
    ),
]


def trace(
    source: Pod, target: Target, mesh: MeshOption = None, output: Output = Format.TABLE
) -> None:
    """Show what a packet meets on its way, and on the way back.

    Entries of maps, routes and identities. Nothing is sent: what the kernels hold now is looked
    up where the packet would meet it. Ends with exit code 3 when the way is broken, and says
    where.
    """
    opened = open_mesh(mesh)
    found = gather(opened, source, target)
    if output is Format.JSON:
        show_json(found)
    else:
        say(render(found))
    if found.broken:
        first = found.broken[0]
        raise MeshctlError(f"broken at {first.where}: {first.wrong}", Exit.NOT_READY)


def gather(mesh: Mesh, source: str, target: str) -> Trace:
    """Ask etcds who the parties are, and the agents of both nodes what they would do."""
    one = party(mesh, source)
    first: list[Hop] = []
    if target.count("/") == 1:
        view = _explained(mesh, one, target)
        chosen, first = hops.service(view)
        if not chosen:
            return Trace(source=one, target=None, service=target, hops=tuple(first))
        other = party_at(mesh, *chosen)
    else:
        other = party(mesh, target)
    there = hops.way("there", one, other, *_legs(mesh, one, other))
    back = hops.way("back", other, one, *_legs(mesh, other, one))
    service = target if target.count("/") == 1 else ""
    return Trace(source=one, target=other, service=service, hops=(*first, *there, *back))


def party(mesh: Mesh, name: str) -> Party:
    """The pod ``cluster/namespace/pod`` as its own cluster's etcd has it."""
    parts = name.split("/")
    if len(parts) != 3 or not all(parts):
        text = f"{name!r} is no pod: expected CLUSTER/NAMESPACE/POD."
        raise MeshctlError(text, Exit.USAGE)
    cluster, pod = parts[0], f"{parts[1]}/{parts[2]}"
    every = endpoints.of(mesh.cluster(cluster))
    for it in every:
        if it.name == pod:
            return _party(mesh, it)
    near = sorted(it.name for it in every if it.name)
    hint = f" It has: {', '.join(near[:8])}" if near else ""
    raise MeshctlError(f"{cluster} publishes no pod {pod}.{hint}")


def party_at(mesh: Mesh, cluster: str, address: str) -> Party:
    """Whoever has an address in a cluster."""
    for it in endpoints.of(mesh.cluster(cluster), address):
        if it.address == address:
            return _party(mesh, it)
    return Party(cluster=cluster, address=address)


def _party(mesh: Mesh, it: Endpoint) -> Party:
    return Party(
        cluster=it.cluster,
        name=it.name,
        address=it.address,
        identity=it.identity,
        node_ip=it.node_ip,
        node=_node_name(mesh.cluster(it.cluster), it.node_ip),
    )


def _node_name(cluster: Cluster, node_ip: str) -> str:
    """Any agent of the cluster that answers knows it."""
    for node in cluster.nodes:
        try:
            path = f"/v1/nodes?cluster={cluster.name}"
            known = api.fetch(node.agent, path, tuple[NodeStatus, ...])
        except api.NoAnswer:
            continue
        return next((it.name for it in known if node_ip in (it.ipv4, it.ipv6)), "")
    return ""


def _explained(mesh: Mesh, source: Party, name: str) -> Explanation:
    node = _agent(mesh, source)
    if node is None:
        raise MeshctlError(f"no agent is known on the node of {source.title}.", Exit.UNREACHABLE)
    return api.fetch(node.agent, f"/v1/explain?service={name}", Explanation)


def _legs(mesh: Mesh, one: Party, other: Party) -> tuple[Leg | str, Leg | str]:
    """What both nodes would do; a sentence where nobody says."""
    asked = f"/v1/trace?from={one.address}&to={other.address}"
    return (
        _leg(mesh, one, asked),
        _leg(mesh, other, f"{asked}&node={one.node_ip}" if one.node_ip else asked),
    )


def _leg(mesh: Mesh, at: Party, path: str) -> Leg | str:
    node = _agent(mesh, at)
    if node is None:
        return f"no agent is known on node {at.node or at.node_ip or '?'} of {at.cluster}"
    try:
        return api.fetch(node.agent, path, Leg)
    except api.NoAnswer as error:
        return str(error)


def _agent(mesh: Mesh, at: Party) -> Node | None:
    pairs = mesh.nodes()
    wanted = f"{at.cluster}/{at.node}"
    return next((node for cluster, node in pairs if full_name(cluster, node) == wanted), None)


def render(found: Trace) -> str:
    """A line per hop, with what is wrong below it."""
    parties = [it for it in (found.source, found.target) if it is not None]
    lines = [f"{it.title}: {it.told()}" for it in parties]
    if found.service:
        lines.append(
            f"service {found.service}, as {found.source.cluster}/{found.source.node} has it"
        )
    for way in dict.fromkeys(hop.way for hop in found.hops):
        those = [hop for hop in found.hops if hop.way == way]
        lines.append(f"\n{hops.TITLES[way]}")
        header, *rows = columns(
            ("", "WHERE", "WHAT", "FOUND"),
            [("WRONG" if it.wrong else "ok", it.where, it.what, it.found) for it in those],
        ).splitlines()
        lines.append(header)
        for row, hop in zip(rows, those, strict=True):
            lines.append(row)
            if hop.wrong:
                lines.append(f"    {hop.wrong}")
    return "\n".join(lines)
