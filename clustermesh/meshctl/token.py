"""``meshctl token``: invite a cluster; the inviting cluster's apiserver keeps the record."""

import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from clustermesh.meshctl import api
from clustermesh.meshctl.context import MeshOption, open_mesh
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
from clustermesh.meshfile import Cluster, Mesh
from clustermesh.pki import write_private
from clustermesh.trust.ledger import Listed
from clustermesh.trust.messages import JOIN, Envelope, Sealed

PATIENCE = 20.0

app = typer.Typer(
    help="Invitations for other clusters to join this one (docs/trust.md).", no_args_is_help=True
)
ClusterOption = Annotated[
    str,
    typer.Option(
        "--cluster", help="The inviting cluster; else the only one of the mesh.", show_default=False
    ),
]


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A new token: the only time that its text is shown."""

    token: str
    id: str
    guest: str
    expires: int


@app.command()
def create(
    guest: Annotated[str, typer.Argument(help="The only cluster that may use it.")],
    mesh: MeshOption = None,
    cluster: ClusterOption = "",
    hours: Annotated[float, typer.Option(help="How long it is good; at most 168.")] = 24.0,
    output: Output = Format.TABLE,
) -> None:
    """Invite a cluster. The token is shown once: hand it over as you would a password."""
    host = own(open_mesh(mesh), cluster)
    made = _ask(host, "create", {"guest": guest, "hours": f"{hours:g}"}, Made)
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
    """Show the tokens of a cluster and what became of them; never their text."""
    found = _ask(own(open_mesh(mesh), cluster), "list", {}, tuple[Listed, ...])
    if output is Format.JSON:
        show_json(found)
        return
    rows = [(it.id, it.guest, it.state, _moment(it.expires), _moment(it.used)) for it in found]
    say(columns(("ID", "FOR", "STATE", "EXPIRES", "USED"), rows) if rows else "no tokens")


@app.command()
def revoke(
    token: Annotated[str, typer.Argument(help="Its id, as listed.")],
    mesh: MeshOption = None,
    cluster: ClusterOption = "",
    output: Output = Format.TABLE,
) -> None:
    """Let nobody use a token any more. A cluster that has joined with it stays: see ca revoke."""
    host = own(open_mesh(mesh), cluster)
    done = _ask(host, "revoke", {"id": token}, dict[str, str])
    if output is Format.JSON:
        show_json(done)
    else:
        say(f"{done['id']} is {done['state']}")


@app.command()
def answer(
    request: Annotated[Path, typer.Argument(help="File of `meshctl join --request`.")],
    out: Annotated[Path | None, typer.Option("--out", help="Where the answer goes.")] = None,
    mesh: MeshOption = None,
    cluster: ClusterOption = "",
    output: Output = Format.TABLE,
) -> None:
    """Answer a request to join that came as a file, as the join listener would."""
    host = own(open_mesh(mesh), cluster)
    try:
        envelope = msgspec.json.decode(request.read_bytes(), type=Envelope)
    except msgspec.MsgspecError as error:
        raise MeshctlError(f"{request} is no request to join: {error}.") from error
    body = msgspec.structs.asdict(envelope)
    if envelope.purpose != JOIN:
        done = _post(host, "/v1/join", body, dict[str, str])
        tell(done, f"{done['joined']} has joined {host.name}", output)
        return
    if out is None:
        raise MeshctlError("say with --out where the answer goes.", Exit.USAGE)
    sealed = _post(host, "/v1/join", body, Sealed)
    write_private(out, msgspec.json.encode(sealed))
    text = f"written: {out}; take it to {host.name}'s guest: meshctl join TOKEN --bundle FILE"
    tell({"written": str(out)}, text, output)


def own(mesh: Mesh, name: str) -> Cluster:
    """The cluster meant. Raises ``MeshctlError``."""
    if name:
        return mesh.cluster(name)
    if len(mesh.clusters) == 1:
        return mesh.clusters[0]
    names = ", ".join(it.name for it in mesh.clusters)
    raise MeshctlError(f"say with --cluster which one is meant: {names}.", Exit.USAGE)


def _ask(host: Cluster, verb: str, body: dict[str, str], kind: type[api.T]) -> api.T:
    return _post(host, f"/v1/tokens/{verb}", body, kind)


def _post(host: Cluster, path: str, body: dict[str, str], kind: type[api.T]) -> api.T:
    return api.ask(host.apiserver, path, body, kind, timeout=PATIENCE)


def _moment(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at)) if at else "-"
