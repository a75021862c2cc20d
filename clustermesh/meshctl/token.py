"""``meshctl token``: invite a cluster; the inviting cluster keeps the record."""

import time
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import typer

from clustermesh.meshctl import completing
from clustermesh.meshctl.context import MeshOption, open_mesh
from clustermesh.meshctl.desk import Desk, desk_of
from clustermesh.meshctl.errors import Exit, MeshctlError
from clustermesh.meshctl.output import (
    Format,
    Output,
    columns,
    complain,
    duration,
    say,
    show_json,
    tell,
)
from clustermesh.meshctl.quantities import number
from clustermesh.meshfile import Cluster, Mesh
from clustermesh.pki import write_private
from clustermesh.trust.messages import JOIN, LONGEST, Envelope

T = TypeVar("T")

app = typer.Typer(
    help="Invitations for other clusters to join (docs/trust.md).", no_args_is_help=True
)
ClusterOption = Annotated[
    str, completing.cluster_option("The inviting cluster; else the only one of the mesh.")
]


@app.command()
def create(
    guest: Annotated[str, typer.Argument(metavar="CLUSTER", help="The only one that may use it.")],
    mesh: MeshOption = None,
    cluster: ClusterOption = "",
    hours: Annotated[
        float,
        typer.Option(parser=number, metavar="HOURS", help="How long it is good; at most 168."),
    ] = 24.0,
    output: Output = Format.TABLE,
) -> None:
    """Invite a cluster. The token is shown once: hand it over as you would a password."""
    made = _desk(mesh, cluster).create(guest, hours)
    if output is Format.JSON:
        show_json(made)
        return
    say(made.token)
    complain(
        f"good once, for {made.guest} only, for {duration(made.expires - time.time())}; there:"
        f" meshctl join TOKEN. To take it back: meshctl token revoke {made.id}"
    )


@app.command("list")
def list_(
    mesh: MeshOption = None, cluster: ClusterOption = "", output: Output = Format.TABLE
) -> None:
    """Show the tokens of a cluster, and what became of each.

    Never their text.
    """
    found = _desk(mesh, cluster).listed()
    if output is Format.JSON:
        show_json(found)
        return
    rows = [(it.id, it.guest, it.state, _moment(it.expires), _moment(it.used)) for it in found]
    say(columns(("ID", "FOR", "STATE", "EXPIRES", "USED"), rows) if rows else "no tokens")


@app.command()
def revoke(
    token: Annotated[str, typer.Argument(metavar="ID", help="As listed.")],
    mesh: MeshOption = None,
    cluster: ClusterOption = "",
    output: Output = Format.TABLE,
) -> None:
    """Let nobody use a token any more. A cluster that has joined with it stays: see ca revoke."""
    state = _desk(mesh, cluster).revoke(token)
    tell({"id": token, "state": state}, f"{token} is {state}", output)


@app.command()
def answer(
    request: Annotated[
        Path, typer.Argument(metavar="FILE", help="What `meshctl join --request` wrote.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where the answer goes.")
    ] = None,
    mesh: MeshOption = None,
    cluster: ClusterOption = "",
    output: Output = Format.TABLE,
) -> None:
    """Answer a request to join that came as a file."""
    opened = open_mesh(mesh)
    host = own(opened, cluster)
    desk = desk_of(host, opened)
    envelope = message(request, Envelope, "request to join")
    if envelope.purpose != JOIN:
        joined = desk.finish(envelope)
        tell({"joined": joined}, f"{joined} has joined {host.name}", output)
        return
    if out is None:
        raise MeshctlError("say with --out where the answer goes.", Exit.USAGE)
    write_private(out, msgspec.json.encode(desk.join(envelope)))
    text = f"written: {out}; take it to {host.name}'s guest: meshctl join TOKEN --bundle FILE"
    tell({"written": str(out)}, text, output)


def message(path: Path, kind: type[T], what: str) -> T:
    """What a file from the other side holds. Raises ``MeshctlError``."""
    with path.open("rb") as file:
        content = file.read(2 * LONGEST + 1)
    if len(content) > 2 * LONGEST:
        raise MeshctlError(f"{path} is too large to be a {what}.")
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MeshctlError(
            f"{path} is no {what}, or not the whole of one: {str(error)[:200]}."
        ) from None


def own(mesh: Mesh, name: str) -> Cluster:
    """The cluster meant. Raises ``MeshctlError``."""
    if name:
        return mesh.cluster(name)
    if len(mesh.clusters) == 1:
        return mesh.clusters[0]
    names = ", ".join(it.name for it in mesh.clusters)
    raise MeshctlError(f"say with --cluster which one is meant: {names}.", Exit.USAGE)


def _desk(mesh: Path | None, cluster: str) -> Desk:
    opened = open_mesh(mesh)
    return desk_of(own(opened, cluster), opened)


def _moment(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at)) if at else "-"
