"""Lists from an agent's own knowledge: services, nodes and identities of the mesh."""

from collections.abc import Callable, Sequence
from typing import Annotated, Final, Generic, NamedTuple, TypeVar
from urllib.parse import urlencode

import msgspec
import typer

from clustermesh.meshctl import api, endpoints
from clustermesh.meshctl.context import MeshOption, NodeOption, open_mesh
from clustermesh.meshctl.errors import Exit, MeshctlError
from clustermesh.meshctl.output import Format, Output, columns, complain, say, show_json
from clustermesh.meshfile import Mesh, full_name
from clustermesh.status import BackendStatus, IdentityStatus, NodeStatus, ServiceStatus

T = TypeVar("T")

service_app = typer.Typer(help="Services as the agents balance them.", no_args_is_help=True)
node_app = typer.Typer(help="Nodes of the mesh as the agents know them.", no_args_is_help=True)
identity_app = typer.Typer(help="Identities as the agents know them.", no_args_is_help=True)
endpoint_app = typer.Typer(help="Pods' addresses, as clusters publish them.", no_args_is_help=True)
endpoint_app.command("list")(endpoints.list_)
endpoint_app.command("show")(endpoints.show)


@service_app.command("list")
def services(mesh: MeshOption = None, node: NodeOption = "", output: Output = Format.TABLE) -> None:
    """Frontends with their backends, per node."""
    _list(SERVICES, open_mesh(mesh), node, output)


@node_app.command("list")
def nodes(mesh: MeshOption = None, node: NodeOption = "", output: Output = Format.TABLE) -> None:
    """Nodes of every cluster, per node that knows them."""
    _list(NODES, open_mesh(mesh), node, output)


@identity_app.command("list")
def identities(
    mesh: MeshOption = None, node: NodeOption = "", output: Output = Format.TABLE
) -> None:
    """Identities and their labels, per node that knows them."""
    _list(IDENTITIES, open_mesh(mesh), node, output)


@service_app.command("show")
def show_service(
    name: Annotated[str, typer.Argument(metavar="NAMESPACE/NAME", show_default=False)],
    mesh: MeshOption = None,
    node: NodeOption = "",
    output: Output = Format.TABLE,
) -> None:
    """One service, per node; `meshctl explain service` says why."""
    namespace, rest = _halves(name, "service", "NAMESPACE/NAME")
    _show(SERVICES, open_mesh(mesh), node, output, name, namespace=namespace, name=rest)


@node_app.command("show")
def show_node(
    name: Annotated[str, typer.Argument(metavar="CLUSTER/NODE", show_default=False)],
    mesh: MeshOption = None,
    node: NodeOption = "",
    output: Output = Format.TABLE,
) -> None:
    """One node of the mesh, as each agent knows it."""
    cluster, rest = _halves(name, "node", "CLUSTER/NODE")
    _show(NODES, open_mesh(mesh), node, output, name, cluster=cluster, name=rest)


@identity_app.command("show")
def show_identity(
    number: Annotated[int, typer.Argument(metavar="NUMBER", show_default=False)],
    mesh: MeshOption = None,
    node: NodeOption = "",
    output: Output = Format.TABLE,
) -> None:
    """One identity and its labels, as each agent knows it."""
    _show(IDENTITIES, open_mesh(mesh), node, output, str(number), id=str(number))


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


class Listed(NamedTuple, Generic[T]):
    """What agents know of a kind: where to ask, and how it is shown."""

    what: str
    path: str
    kind: type[tuple[T, ...]]
    render: Callable[[Sequence[T]], str]


SERVICES: Final = Listed("service", "/v1/services", tuple[ServiceStatus, ...], service_table)
NODES: Final = Listed("node", "/v1/nodes", tuple[NodeStatus, ...], node_table)
IDENTITIES: Final = Listed("identity", "/v1/identities", tuple[IdentityStatus, ...], identity_table)


def _halves(written: str, what: str, form: str) -> tuple[str, str]:
    first, slash, rest = written.partition("/")
    if not (slash and first and rest):
        raise MeshctlError(f"{written!r} is no {what}: expected {form}.", Exit.USAGE)
    return first, rest


def _show(
    listed: Listed[T], mesh: Mesh, node: str, output: Format, /, which: str, **query: str
) -> None:
    """As ``_list``; and when nobody who answers knows it, that is a failure."""
    if not any(_list(listed, mesh, node, output, **query).values()):
        raise MeshctlError(f"no agent that was asked knows {listed.what} {which}.")


def _list(
    listed: Listed[T], mesh: Mesh, node: str, output: Format, /, **query: str
) -> dict[str, tuple[T, ...]]:
    """Ask every agent, or one; show what is told, and who is silent."""
    path = f"{listed.path}?{urlencode(query)}" if query else listed.path
    asked = {full_name(*pair): pair[1].agent for pair in mesh.nodes(node)}
    found, silent = api.fetch_all(asked, path, listed.kind)
    if output is Format.JSON:
        one = found.get(node) if node else None
        show_json(msgspec.to_builtins(found if one is None else one))
    elif found:
        say("\n\n".join(f"{name}:\n{listed.render(items)}" for name, items in found.items()))
    if silent:
        for name, reason in silent.items():
            complain(f"{name}: {reason}")
        raise MeshctlError(
            f"{len(silent)} of {len(mesh.nodes(node))} agents do not answer.", Exit.UNREACHABLE
        )
    return found
