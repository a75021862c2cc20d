"""``meshctl ca revoke``: a peer is let in no more, neither by certificate nor by token."""

import time
from typing import Annotated

import typer

from clustermesh.meshctl import api, completing
from clustermesh.meshctl.ca import DryRun, named
from clustermesh.meshctl.context import MeshOption, open_mesh
from clustermesh.meshctl.desk import desk_of, usable
from clustermesh.meshctl.errors import Exit, MeshctlError
from clustermesh.meshctl.output import Format, Output, complain, tell
from clustermesh.meshctl.places import known, place_of
from clustermesh.meshctl.quantities import SECONDS, seconds
from clustermesh.meshfile import Cluster
from clustermesh.places.shelf import rehearsed
from clustermesh.status import ApiserverStatus
from clustermesh.trust import users
from clustermesh.trust.host import unlisted

POLL = 0.1
WAIT = 30.0


def revoke(
    cluster: Annotated[str, completing.cluster_argument("Whose etcd.")],
    peer: Annotated[
        str, typer.Argument(metavar="PEER", help="Who is let in no more.", show_default=False)
    ],
    mesh: MeshOption = None,
    timeout: Annotated[
        float,
        typer.Option(parser=seconds, metavar=SECONDS, help="How long to wait; 0: do not wait."),
    ] = WAIT,
    dry_run: DryRun = False,  # noqa: FBT002  # typer makes it a flag
    output: Output = Format.TABLE,
) -> None:
    """Let a peer into a cluster's etcd no more.

    Its user is removed, whatever certificate it has. What the cluster itself reads of the peer
    stays: see `meshctl disconnect`.
    """
    member = known(open_mesh(mesh).cluster(cluster))
    user = f"remote-{named(peer)}"
    place = place_of(member)
    if place.users is None:
        raise MeshctlError(f"{unlisted(cluster)}.", Exit.USAGE)
    with rehearsed(dry_run):
        alive = "" if dry_run else _end_tokens(member, peer)
        changed = users.remove(place, user)
    if alive:
        raise MeshctlError(
            f"{user} is removed, but {alive}: join tokens that {peer} may have are as they were,"
            " and with one it could let itself in again; revoke it again when that is mended."
        )
    if timeout > 0 and not dry_run:
        _until_gone(member, user, timeout)
    word = "would be" if dry_run and changed else "is" if changed else "was"
    found = {"cluster": cluster, "user": user, "changed": changed, "dry-run": dry_run}
    tell(found, f"{cluster}: {user} {word} removed ({users.where(place)})", output)
    if changed and not dry_run:
        complain(
            "a watch that the peer has open goes on until its connection ends: restart the etcd"
            f" of {cluster} to end it now; its other readers take up where they were. A stolen key"
            " is of use again if the user ever returns: `meshctl ca rotate` ends that."
        )


def _end_tokens(member: Cluster, peer: str) -> str:
    """With a token that lives a guest could let itself in again. Without join listener: none.

    Why they could not be ended, when somebody must have them; empty: they are.
    """
    try:
        desk = desk_of(member)
        for one in usable(desk, peer):
            desk.revoke(one.id)
    except MeshctlError as error:
        return str(error).rstrip(".")
    except api.NoAnswer as error:
        return str(error) if member.context else ""
    return ""


def _until_gone(member: Cluster, user: str, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        peers = api.fetch(member.apiserver, "/v1/status", ApiserverStatus).peers
        if peers is None:
            raise MeshctlError(
                f"the apiserver of {member.name} keeps no users file: start it with"
                " --cluster-users-config-path, or remove the user with etcdctl."
            )
        if user not in peers:
            return
        if time.monotonic() > deadline:
            raise MeshctlError(
                f"{user} is still in the etcd of {member.name} after {timeout:g} s;"
                " see the trouble in `meshctl status`.",
                Exit.NOT_READY,
            )
        time.sleep(POLL)
