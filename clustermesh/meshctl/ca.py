"""``meshctl ca``: make an authority, issue its certificates, show them, revoke a peer."""

import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from clustermesh.certificates import CertificateError, certificates_in
from clustermesh.meshctl import api
from clustermesh.meshctl.context import MeshOption, open_mesh
from clustermesh.meshctl.errors import Exit, MeshctlError
from clustermesh.meshctl.output import Format, Output, columns, complain, say, show_json
from clustermesh.meshctl.places import place_of
from clustermesh.meshfile import Cluster, Mesh
from clustermesh.pki import Authority, write_private
from clustermesh.places.shelf import PRIVATE
from clustermesh.status import ApiserverStatus, CertificateStatus
from clustermesh.trust import expiry, issuing, users
from clustermesh.trust.issuing import Kind, Names
from clustermesh.trust.ledger import Listed

POLL = 0.1
WAIT = 30.0

app = typer.Typer(help="Authorities and their certificates (docs/trust.md).", no_args_is_help=True)
Directory = Annotated[
    Path, typer.Option("--dir", help="Where ca.crt and ca.key are.", show_default=False)
]


class Done(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """Files that were written, and what is in them."""

    changed: bool
    files: tuple[str, ...]
    certificates: tuple[CertificateStatus, ...]


@app.command()
def init(
    cluster: Annotated[
        str, typer.Argument(help="The cluster, or a name for the whole mesh.", show_default=False)
    ],
    directory: Directory,
    output: Output = Format.TABLE,
) -> None:
    """Make an authority; one that is there is left as it is.

    One per cluster is the safer choice; to have one for the mesh, issue every cluster's
    certificates from the same directory.
    """
    _named(cluster)
    changed = issuing.make(directory, cluster)
    _show_done(changed, (directory / "ca.crt", directory / "ca.key"), output)


@app.command()
def issue(
    kind: Annotated[Kind, typer.Argument(help="Whose certificate.", show_default=False)],
    directory: Directory,
    cluster: Annotated[
        str, typer.Option("--cluster", help="Whose etcd it is for.", show_default=False)
    ],
    peer: Annotated[str, typer.Option(help="For remote: the cluster that reads.")] = "",
    out: Annotated[
        Path | None, typer.Option(help="Where to write; else beside the authority.")
    ] = None,
    request: Annotated[
        Path | None, typer.Option(help="A signing request, whose key stays where it is.")
    ] = None,
    address: Annotated[list[str] | None, typer.Option(help="For server: an IP address.")] = None,
    name: Annotated[list[str] | None, typer.Option(help="For server: a DNS name.")] = None,
    namespace: Annotated[str, typer.Option(help="For server: of its Service.")] = "kube-system",
    force: Annotated[bool, typer.Option("--force", help="Also while it is good.")] = False,  # noqa: FBT002  # typer makes it a flag
    output: Output = Format.TABLE,
) -> None:
    """Issue a certificate; one that is good for 30 days more is left as it is.

    A server's is issued again when a name or address is new; those that it has stay.
    """
    _named(cluster)
    if (kind is Kind.REMOTE) != bool(peer):
        raise MeshctlError("name the reader with --peer, for the kind remote only.", Exit.USAGE)
    if peer:
        _named(peer)
    authority = Authority.load(directory / "ca.crt", directory / "ca.key")
    common = issuing.subject(kind, cluster, peer)
    stem = out or directory
    stem.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    file = f"remote-{peer}" if kind is Kind.REMOTE else str(kind)
    certificate, key = stem / f"{file}.crt", stem / f"{file}.key"
    asked = issuing.requested(request.read_bytes(), common) if request is not None else None
    whole = key.is_file() if asked is None else _is_for(certificate, asked)
    present = certificate.read_bytes() if certificate.is_file() else b""
    names = Names(namespace, name or (), address or ())
    if (
        not force
        and whole
        and authority.vouches_for_pem(present, common)
        and _valid(kind, names, present)
    ):
        _show_done(changed=False, files=(certificate,), output=output)
        return
    if asked is not None:
        write_private(certificate, authority.sign(common, asked))
        _show_done(changed=True, files=(certificate,), output=output)
        return
    try:
        pair = issuing.issue(authority, kind, common, names.with_those_of(present))
    except ValueError as error:
        raise MeshctlError(f"{error}.", Exit.USAGE) from error
    pair.write(certificate, key)
    _show_done(changed=True, files=(certificate, key), output=output)


@app.command()
def show(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Files or directories; else the mesh's.")
    ] = None,
    mesh: MeshOption = None,
    output: Output = Format.TABLE,
) -> None:
    """Show certificates with subject, fingerprint and the days that are left."""
    places = files or _places(open_mesh(mesh))
    found = tuple(one for place in places for one in _in(place))
    if output is Format.JSON:
        show_json(found)
        return
    say(_table(found))
    for line in expiry.warnings(found, time.time()):
        complain(line)


app.command("list", help="The same as show.")(show)


@app.command()
def revoke(
    cluster: Annotated[str, typer.Argument(help="Whose etcd.", show_default=False)],
    peer: Annotated[str, typer.Argument(help="Who is let in no more.", show_default=False)],
    mesh: MeshOption = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait; 0: do not wait.")] = WAIT,
    output: Output = Format.TABLE,
) -> None:
    """Let a peer into a cluster's etcd no more: its user is removed, certificate or not.

    What the cluster itself reads of the peer stays: see `meshctl disconnect`.
    """
    member = on_files(open_mesh(mesh).cluster(cluster))
    user = f"remote-{_named(peer)}"
    place = place_of(member)
    _end_tokens(member, peer)
    changed = users.remove(place, user)
    if timeout > 0:
        _until_gone(member, user, timeout)
    if output is Format.JSON:
        show_json({"cluster": cluster, "user": user, "changed": changed})
    else:
        say(f"{cluster}: {user} {'is' if changed else 'was'} removed ({users.where(place)})")
    if changed:
        complain(
            "a watch that the peer has open goes on until its connection ends: restart the etcd"
            f" of {cluster} to end it now; its other readers take up where they were. A stolen key"
            " is of use again if the user ever returns: `meshctl ca rotate` ends that."
        )


def _end_tokens(member: Cluster, peer: str) -> None:
    """With a token that lives a guest could let itself in again. Without join listener: none."""
    with suppress(api.NoAnswer):
        for one in api.ask(member.apiserver, "/v1/tokens/list", {}, tuple[Listed, ...]):
            if one.guest == peer:
                api.ask(member.apiserver, "/v1/tokens/revoke", {"id": one.id}, dict[str, str])


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


def on_files(member: Cluster) -> Cluster:
    """The cluster, when what it is made of are files here. Raises ``MeshctlError``."""
    if Path() in (member.ca_key, member.config_dir, member.users_file):
        raise MeshctlError(
            f"{member.name} has no ca-key, config-dir and users-file in the mesh file: this"
            " works on files of this machine; in Kubernetes, change its Secrets (docs/trust.md).",
            Exit.USAGE,
        )
    return member


def _valid(kind: Kind, names: Names, present: bytes) -> bool:
    """Whether a server's certificate has all that is asked for now; the others have no names."""
    try:
        return kind is not Kind.SERVER or names.are_in(present)
    except ValueError as error:
        raise MeshctlError(f"{error}.", Exit.USAGE) from error


def _is_for(certificate: Path, key: object) -> bool:
    """Whether the file holds a certificate for this key."""
    try:
        return certificates_in(certificate)[0].public_key() == key
    except CertificateError:
        return False


def _named(cluster: str) -> str:
    try:
        return issuing.cluster_name(cluster)
    except ValueError as error:
        raise MeshctlError(f"{error}.", Exit.USAGE) from error


def _places(mesh: Mesh) -> list[Path]:
    found = [place for it in mesh.clusters for place in (it.ca_cert.parent, it.config_dir)]
    return [place for place in dict.fromkeys(found) if place != Path()]


def _in(place: Path) -> list[CertificateStatus]:
    paths = sorted(place.glob("*.crt")) if place.is_dir() else [place]
    if not place.exists():
        raise CertificateError(f"there is no {place}")
    return [one for path in paths for one in expiry.described(path, path.name, expiry.each)]


def _table(found: tuple[CertificateStatus, ...]) -> str:
    now = time.time()
    rows = [
        (it.file, it.subject, "CA" if it.authority else "", it.fingerprint[:16],
         time.strftime("%Y-%m-%d", time.gmtime(it.not_after)), str(expiry.days_left(it, now)))
        for it in found
    ]  # fmt: skip
    return columns(("FILE", "SUBJECT", "KIND", "FINGERPRINT", "ENDS", "DAYS LEFT"), rows)


def _show_done(changed: bool, files: tuple[Path, ...], output: Format) -> None:  # noqa: FBT001  # told on
    found = tuple(one for path in files if path.suffix == ".crt" for one in _in(path))
    if output is Format.JSON:
        names = tuple(map(str, files))
        show_json(Done(changed=changed, files=names, certificates=found))
    else:
        say("written:" if changed else "nothing to do: it is there and good")
        say(_table(found))
