"""``meshctl join``: enter into a mesh with a token of one of its clusters."""

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from clustermesh.meshctl import watch
from clustermesh.meshctl.context import MeshOption, open_mesh
from clustermesh.meshctl.errors import Exit, MeshctlError
from clustermesh.meshctl.output import Format, Output, Progress, complain, say, show_json, tell
from clustermesh.meshctl.places import known, place_of
from clustermesh.meshctl.quantities import SECONDS, seconds
from clustermesh.meshctl.token import message, own
from clustermesh.meshfile import Cluster, Mesh, full_name
from clustermesh.pki import write_private
from clustermesh.trust.contact import Contact, Unreached
from clustermesh.trust.guest import Guest
from clustermesh.trust.messages import Answer, JoinError, Sealed
from clustermesh.trust.token import TokenError

WAIT = 60.0


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """Who joined whom, and what the own nodes make of it."""

    cluster: str
    host: str
    nodes: tuple[watch.Outcome, ...]


def join(
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="- reads it from standard input.")],
    mesh: MeshOption = None,
    cluster: Annotated[
        str,
        typer.Option(
            metavar="CLUSTER", help="Who joins; else the only one of the mesh.", show_default=False
        ),
    ] = "",
    request: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Offline, first: write the request there."),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Offline, then: take the host's answer from there."),
    ] = None,
    finish: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --bundle: write what the host needs there."),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(parser=seconds, metavar=SECONDS, help="How long to wait for the nodes."),
    ] = WAIT,
    output: Output = Format.TABLE,
) -> None:
    """Join the cluster that gave a token.

    Afterwards both read each other. No key leaves its host. Run again after an interruption,
    with the same token.
    """
    opened = open_mesh(mesh)
    member = known(own(opened, cluster))
    text = sys.stdin.read() if token == "-" else token  # noqa: S105  # a dash
    try:
        ids = {it.id: it.name for it in opened.clusters}
        guest = Guest(
            text,
            member,
            place_of(member),
            max_clusters=opened.max_connected_clusters,
            known=ids,
        )
        if request is not None:
            write_private(request, msgspec.json.encode(guest.request()))
            text = f"written: {request}; take it to {guest.token.host}: meshctl token answer FILE"
            tell({"written": str(request)}, text, output)
            return
        answer = _offline(guest, bundle, finish) if bundle else _online(guest)
    except TokenError as error:
        raise MeshctlError(f"{error}.", Exit.USAGE) from error
    except JoinError as error:
        raise MeshctlError(f"{error}.") from error
    except Unreached as error:
        raise MeshctlError(
            f"{error}. Without a way there, join with files: meshctl join TOKEN --request FILE.",
            Exit.UNREACHABLE,
        ) from error
    _tell(opened, member, answer, timeout, output)


def _online(guest: Guest) -> Answer:
    contact = Contact(guest.token)
    guest.verify(contact.meet())
    answer, finish = guest.accept(contact.join(guest.request()))
    contact.finish(finish)
    guest.connect(answer)
    return answer


def _offline(guest: Guest, bundle: Path, finish: Path | None) -> Answer:
    if finish is None:
        raise MeshctlError("say with --finish where the file for the host goes.", Exit.USAGE)
    answer, envelope = guest.accept(message(bundle, Sealed, "host's answer"))
    write_private(finish, msgspec.json.encode(envelope))
    guest.connect(answer)
    complain(f"written: {finish}; take it to {guest.token.host}: meshctl token answer FILE")
    return answer


def _tell(mesh: Mesh, member: Cluster, answer: Answer, timeout: float, output: Format) -> None:
    host = answer.member
    bits = 16 if mesh.max_connected_clusters == 255 else 15
    pairs = [
        watch.Pair(full_name(member, node), node, host.name, host.id, bits)
        for node in member.nodes
        if timeout > 0
    ]
    with Progress() as progress:
        outcomes = watch.until(pairs, watch.synced, timeout=timeout, report=progress)
    if output is Format.JSON:
        show_json(Joined(cluster=member.name, host=host.name, nodes=tuple(outcomes)))
    else:
        say(f"{member.name} and {host.name} may read each other; the token is used up")
        for one in outcomes:
            say(f"  {one.node}: {'synced' if one.done else 'not synced'}: {one.why}")
    if late := [one for one in outcomes if not one.done]:
        raise MeshctlError(f"{late[0].node} is not synced: {late[0].why}.", Exit.NOT_READY)
