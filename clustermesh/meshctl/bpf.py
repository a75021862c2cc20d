"""Read the nodes' pinned maps: what forwards packets now, also while the agent is dead."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from bpf.errors import BpfError
from clustermesh.errors import NoAnswer
from clustermesh.meshctl import connections, maps, pins
from clustermesh.meshctl.api import AT_ONCE
from clustermesh.meshctl.context import MeshOption, NodeOption, open_mesh
from clustermesh.meshctl.errors import Exit, MeshctlError
from clustermesh.meshctl.output import Format, Output, columns, complain, say, show_json
from clustermesh.meshctl.pins import Pins
from clustermesh.meshfile import Node, full_name
from clustermesh.pinned import PAIR

Rows = Sequence[tuple[str, ...]]
Read = Callable[[Pins], Rows]

PINS = Path("clustermesh", "maps")
BALANCER = Path("clustermesh", "lb", "maps")
FAMILIES = (4, 6)

app = typer.Typer(help="The nodes' eBPF maps, read from their pins.", no_args_is_help=True)
tunnel_app = typer.Typer(help="Pod ranges and their nodes.", no_args_is_help=True)
ipcache_app = typer.Typer(help="Addresses, identities and nodes.", no_args_is_help=True)
lb_app = typer.Typer(help="Load balancing.", no_args_is_help=True)
maglev_app = typer.Typer(help="Selection tables of services.", no_args_is_help=True)
nodes_app = typer.Typer(help="Who may send over the overlay.", no_args_is_help=True)
ct_app = typer.Typer(help="Connections translated packet by packet.", no_args_is_help=True)
metrics_app = typer.Typer(help="Counters of packets and connections.", no_args_is_help=True)
lb_app.add_typer(maglev_app, name="maglev")
for _name, _app in {
    "tunnel": tunnel_app,
    "ipcache": ipcache_app,
    "lb": lb_app,
    "nodes": nodes_app,
    "ct": ct_app,
    "metrics": metrics_app,
}.items():
    app.add_typer(_app, name=_name)


@tunnel_app.command("list")
def tunnel(mesh: MeshOption = None, node: NodeOption = "", output: Output = Format.TABLE) -> None:
    """Pod range to node."""
    _show(mesh, node, output, ("TUNNEL", "VALUE"), read_tunnel)


@ipcache_app.command("list")
def ipcache(mesh: MeshOption = None, node: NodeOption = "", output: Output = Format.TABLE) -> None:
    """Address or prefix to identity and node."""
    _show(mesh, node, output, ("IP PREFIX/ADDRESS", "IDENTITY"), read_ipcache)


@lb_app.command("list")
def lb(
    mesh: MeshOption = None,
    node: NodeOption = "",
    output: Output = Format.TABLE,
    frontends: Annotated[  # noqa: FBT002  # typer makes it a flag
        bool, typer.Option("--frontends", help="Raw entries of the services map.")
    ] = False,
    backends: Annotated[bool, typer.Option("--backends", help="Backends by id.")] = False,  # noqa: FBT002  # typer makes it a flag
    revnat: Annotated[bool, typer.Option("--revnat", help="Frontends by reverse-NAT id.")] = False,  # noqa: FBT002  # typer makes it a flag
    source_ranges: Annotated[  # noqa: FBT002  # typer makes it a flag
        bool, typer.Option("--source-ranges", help="Clients that frontends serve.")
    ] = False,
) -> None:
    """Service address to backends."""
    if frontends + backends + revnat + source_ranges > 1:
        raise MeshctlError(
            "choose one of --frontends, --backends, --revnat and --source-ranges.", Exit.USAGE
        )
    by_id = ("ID", "BACKEND ADDRESS (REVNAT_ID) (SLOT)")
    if frontends:
        _show(mesh, node, output, ("SERVICE ADDRESS", "BACKEND ID"), read_frontends)
    elif backends:
        _show(mesh, node, output, by_id, read_backends)
    elif revnat:
        _show(mesh, node, output, by_id, read_reverse_nat)
    elif source_ranges:
        _show(mesh, node, output, ("SOURCE RANGE", "REVNAT_ID"), read_source_ranges)
    else:
        _show(mesh, node, output, ("SERVICE ADDRESS", by_id[1]), read_services)


@maglev_app.command("list")
def maglev(mesh: MeshOption = None, node: NodeOption = "", output: Output = Format.TABLE) -> None:
    """Which backend each place of a service's table names."""
    _show(mesh, node, output, ("SVC ID", "LOOKUP TABLE"), read_tables)


@nodes_app.command("list")
def nodes(mesh: MeshOption = None, node: NodeOption = "", output: Output = Format.TABLE) -> None:
    """Known nodes, and the identities each may use."""
    _show(mesh, node, output, ("NODE", "CLUSTER ID", "IDENTITIES"), read_nodes)


@ct_app.command("list")
def ct(mesh: MeshOption = None, node: NodeOption = "", output: Output = Format.TABLE) -> None:
    """Client to service to backend; of nodes with --lb-devices."""
    _show(mesh, node, output, ("CONNECTION", "STATE"), read_connections)


@metrics_app.command("list")
def metrics(mesh: MeshOption = None, node: NodeOption = "", output: Output = Format.TABLE) -> None:
    """What was forwarded, and what was dropped and why."""
    header = ("REASON", "DIRECTION", "PACKETS", "BYTES", "LINE", "FILE", "MEANING")
    _show(mesh, node, output, header, read_metrics)


def read_tunnel(root: Pins) -> Rows:
    return maps.tunnel(_entries(root, "cilium_tunnel_map"))


def read_ipcache(root: Pins) -> Rows:
    return maps.ipcache(_entries(root, "cilium_ipcache"))


def read_services(root: Pins) -> Rows:
    return [
        row
        for family in FAMILIES
        for row in maps.services(_services(root, family), _backends(root, family))
    ]


def read_frontends(root: Pins) -> Rows:
    return [row for family in FAMILIES for row in maps.frontends(_services(root, family))]


def read_backends(root: Pins) -> Rows:
    return [row for family in FAMILIES for row in maps.backends(_backends(root, family))]


def read_reverse_nat(root: Pins) -> Rows:
    return [
        row
        for family in FAMILIES
        for row in maps.reverse_nat(_entries(root, f"cilium_lb{family}_reverse_nat"))
    ]


def read_source_ranges(root: Pins) -> Rows:
    return [
        row
        for family in FAMILIES
        for row in maps.source_ranges(_entries(root, f"cilium_lb{family}_source_range"))
    ]


def read_tables(root: Pins) -> Rows:
    return [
        row
        for family in FAMILIES
        for row in maps.tables(_entries(root, f"cilium_lb{family}_maglev"), family)
    ]


def read_nodes(root: Pins) -> Rows:
    return maps.nodes(_entries(root, "cm_nodes"))


def read_connections(root: Pins) -> Rows:
    try:
        return [
            row
            for name in connections.MAPS
            for row in connections.connections(_entries(root, name, BALANCER))
        ]
    except FileNotFoundError:
        _entries(root, "cilium_metrics")  # there is an agent, or this fails as well
        return []  # it balances no packets


def read_metrics(root: Pins) -> Rows:
    found = _entries(root, "cilium_metrics")
    return maps.metrics({key: PAIR.unpack(value) for key, value in found})


def _services(root: Pins, family: int) -> list[tuple[bytes, bytes]]:
    return _entries(root, f"cilium_lb{family}_services_v2")


def _backends(root: Pins, family: int) -> list[tuple[bytes, bytes]]:
    return _entries(root, f"cilium_lb{family}_backends_v3")


def _entries(root: Pins, name: str, folder: Path = PINS) -> list[tuple[bytes, bytes]]:
    return root.entries(folder / name)


def _show(
    mesh: Path | None, node: str, output: Format, header: tuple[str, ...], read: Read
) -> None:
    chosen = {full_name(*pair): pair[1] for pair in open_mesh(mesh).nodes(node)}
    found: dict[str, Rows] = {}
    failures = []

    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        told = pool.map(partial(_tried, read), chosen.values())
        for name, rows in zip(chosen, told, strict=True):
            if isinstance(rows, str):
                failures.append(f"{name}: {rows}")
            else:
                found[name] = rows
    if output is Format.JSON:
        shown = {name: as_object(header, rows) for name, rows in found.items()}
        show_json(shown.get(node, shown) if node else shown)
    elif found:
        say("\n\n".join(f"{name}:\n{columns(header, rows)}" for name, rows in found.items()))
    for line in failures:
        complain(line)
    if failures:
        raise MeshctlError(f"the maps of {len(failures)} of {len(chosen)} nodes could not be read")


def _tried(read: Read, entry: Node) -> Rows | str:
    """A node's, or why not."""
    try:
        return read(pins.of(entry))
    except OSError as error:
        return f"cannot read its maps ({error.strerror}); are they here?"
    except (BpfError, NoAnswer) as error:
        return str(error)


def as_object(header: tuple[str, ...], rows: Rows) -> object:
    """``{key: [value, ...]}`` for two columns, as cilium-dbg has it; a list of objects for more."""
    if len(header) > 2:
        names = [name.lower().replace(" ", "-") for name in header]
        return [dict(zip(names, row, strict=True)) for row in rows]
    grouped: dict[str, list[str]] = {}
    for key, value in rows:
        grouped.setdefault(key, []).append(value)
    return grouped
