"""Lists from an agent's own knowledge: services, nodes and identities of the mesh."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
import typer

from clustermesh.meshctl import api
from clustermesh.meshctl.context import MeshOption, NodeOption, open_mesh
from clustermesh.meshctl.errors import Exit, MeshctlError
from clustermesh.meshctl.meshfile import Mesh, full_name
from clustermesh.meshctl.output import Format, Output, columns, complain, say, show_json
from clustermesh.status import BackendStatus, IdentityStatus, NodeStatus, ServiceStatus

T = TypeVar("T")

service_app = typer.Typer(help="Services as the agents balance them.", no_args_is_help=True)
node_app = typer.Typer(help="Nodes of the mesh as the agents know them.", no_args_is_help=True)
identity_app = typer.Typer(help="Identities as the agents know them.", no_args_is_help=True)


@service_app.command("list")
def services(mesh: MeshOption = None, node: NodeOption = "", output: Output = Format.TABLE) -> None:
    """Frontends with their backends, per node."""
    _list(open_mesh(mesh), node, output, "/v1/services", tuple[ServiceStatus, ...], service_table)


@node_app.command("list")
def nodes(mesh: MeshOption = None, node: NodeOption = "", output: Output = Format.TABLE) -> None:
    """Nodes of every cluster, per node that knows them."""
    _list(open_mesh(mesh), node, output, "/v1/nodes", tuple[NodeStatus, ...], node_table)


@identity_app.command("list")
def identities(
    mesh: MeshOption = None, node: NodeOption = "", output: Output = Format.TABLE
) -> None:
    """Security identities and their labels, per node that knows them."""
    kind = tuple[IdentityStatus, ...]
    _list(open_mesh(mesh), node, output, "/v1/identities", kind, identity_table)


def service_table(found: Sequence[ServiceStatus]) -> str:
    """Columns of ``service list`` in contract datapath 7; more backends on lines of their own."""
    header = ("ID", "Frontend", "Service Type", "Name", "Backend")
    rows: list[tuple[str, ...]] = []
    for service in sorted(found, key=lambda service: (service.id, service.frontend)):
        lines = [_backend(order, b) for order, b in enumerate(service.backends, 1)] or [""]
        name = f"{service.namespace}/{service.name}{' (global)' if service.is_global else ''}"
        rows.append((str(service.id), service.frontend, service.type, name, lines[0]))
        rows += [("", "", "", "", line) for line in lines[1:]]
    return columns(header, rows)


def node_table(found: Sequence[NodeStatus]) -> str:
    """Columns of ``node list`` in contract datapath 7."""
    header = ("Name", "IPv4 Address", "Endpoint CIDR", "IPv6 Address", "Endpoint CIDR", "Source")
    rows = [
        (
            f"{node.cluster}/{node.name}",
            node.ipv4,
            ",".join(node.ipv4_cidrs),
            node.ipv6,
            ",".join(node.ipv6_cidrs),
            node.source,
        )
        for node in found
    ]
    return columns(header, sorted(rows))


def identity_table(found: Sequence[IdentityStatus]) -> str:
    """Number and labels, further labels on lines of their own."""
    rows: list[tuple[str, str]] = []
    for identity in sorted(found, key=lambda identity: identity.id):
        first, *rest = identity.labels or ("",)
        rows.append((str(identity.id), first))
        rows += [("", label) for label in rest]
    return columns(("ID", "LABELS"), rows)


def _backend(order: int, backend: BackendStatus) -> str:
    where = f" {backend.cluster}" if backend.cluster else ""
    unused = "" if backend.used else f" unused: {backend.why}" if backend.why else " unused"
    return f"{order} => {backend.address} ({backend.state}){where}{unused}"


def _list(
    mesh: Mesh,
    node: str,
    output: Format,
    path: str,
    kind: type[tuple[T, ...]],
    render: Callable[[Sequence[T]], str],
) -> None:
    found: dict[str, tuple[T, ...]] = {}
    silent = []
    for cluster, entry in mesh.nodes(node):
        name = full_name(cluster, entry)
        try:
            found[name] = api.fetch(entry.agent, path, kind)
        except api.NoAnswer as error:
            silent.append(f"{name}: {error}")
    if output is Format.JSON:
        one = found.get(node) if node else None
        show_json(msgspec.to_builtins(found if one is None else one))
    else:
        say("\n\n".join(f"{name}:\n{render(items)}" for name, items in found.items()))
    if silent:
        for line in silent:
            complain(line)
        raise MeshctlError(f"{len(silent)} of {len(mesh.nodes(node))} agents", Exit.UNREACHABLE)
