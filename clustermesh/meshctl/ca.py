"""``meshctl ca``: make an authority, issue its certificates, show them."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from clustermesh.certificates import CertificateError
from clustermesh.meshctl.context import CHOSEN, MeshOption, open_mesh
from clustermesh.meshctl.errors import Exit, MeshctlError
from clustermesh.meshctl.output import Format, Output, columns, complain, say, show_json
from clustermesh.meshfile import Mesh
from clustermesh.pki import Authority
from clustermesh.places.shelf import Folder, rehearsed
from clustermesh.status import CertificateStatus
from clustermesh.trust import expiry, issuing, keeping
from clustermesh.trust.issuing import Kind, Names
from clustermesh.trust.keeping import Kept, Keys, Leaf, Order

WHOSE = f"Whose certificate: {', '.join(Kind)}."

app = typer.Typer(help="Authorities and their certificates (docs/trust.md).", no_args_is_help=True)
Directory = Annotated[
    Path | None,
    typer.Option(
        "--dir",
        metavar="DIR",
        help="Where ca.crt and ca.key are; else Secrets of a context.",
        show_default=False,
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Change nothing; API servers judge what would be written.")
]


class Done(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """Files, or keys of Secrets, that were written, and what is in them."""

    changed: bool
    dry_run: bool = False
    files: tuple[str, ...]
    certificates: tuple[CertificateStatus, ...]


@app.command()
def init(
    cluster: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="The cluster, or a name for the whole mesh.", show_default=False
        ),
    ],
    directory: Directory = None,
    mesh: MeshOption = None,
    dry_run: DryRun = False,  # noqa: FBT002  # typer makes it a flag
    output: Output = Format.TABLE,
) -> None:
    """Make an authority; one that is there stays as it is.

    In the files of a directory, or in the Secret clustermesh-ca of the cluster of --context.

    One per cluster is the safer choice; to have one for the mesh, issue every cluster's
    certificates from the same directory.
    """
    named(cluster)
    with rehearsed(dry_run):
        keys = Keys(Folder.made(directory)) if directory else _keys(cluster, mesh)
        _show_done(keeping.make(keys, cluster), output, dry_run=dry_run)


@app.command()
def issue(
    kind: Annotated[Kind, typer.Argument(metavar="KIND", help=WHOSE, show_default=False)],
    cluster: Annotated[
        str,
        typer.Option(
            "--cluster", metavar="CLUSTER", help="Whose etcd it is for.", show_default=False
        ),
    ],
    directory: Directory = None,
    mesh: MeshOption = None,
    peer: Annotated[
        str, typer.Option(metavar="CLUSTER", help="For remote: the cluster that reads.")
    ] = "",
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where to write; else beside the authority."),
    ] = None,
    request: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A signing request, whose key stays where it is."),
    ] = None,
    address: Annotated[
        list[str] | None, typer.Option(metavar="IP", help="For server: an address of it; again.")
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="For server: a DNS name; again.")
    ] = None,
    namespace: Annotated[
        str, typer.Option(metavar="NAMESPACE", help="For server: of its Service.")
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Also while it is good.")] = False,  # noqa: FBT002  # typer makes it a flag
    dry_run: DryRun = False,  # noqa: FBT002  # typer makes it a flag
    output: Output = Format.TABLE,
) -> None:
    """Issue a certificate; a good one is left as it is.

    It is good while 30 days are left. A server's is issued again when a name or address is new;
    those that it has stay.
    """
    named(cluster)
    if (kind is Kind.REMOTE) != bool(peer):
        raise MeshctlError("name the reader with --peer, for the kind remote only.", Exit.USAGE)
    common = issuing.subject(kind, cluster, named(peer) if peer else "")
    asked = issuing.requested(request.read_bytes(), common) if request is not None else None
    space = namespace or CHOSEN.get().namespace
    with rehearsed(dry_run):
        if directory is None:
            if out or request:
                raise MeshctlError("--out and --request need --dir DIR.", Exit.USAGE)
            authority, leaf, space = _in_secrets(kind, cluster, peer, mesh)
        else:
            authority = Authority.load(directory / "ca.crt", directory / "ca.key")
            file = f"remote-{peer}" if kind is Kind.REMOTE else str(kind)
            leaf = Leaf(Folder.made(out or directory), f"{file}.crt", f"{file}.key")
        try:
            names = Names(space, tuple(map(issuing.dns_name, name or ())), address or ())
            order = Order(kind, common, names, asked)
            good = keeping.is_good(authority, order, leaf) and not force
            done = keeping.vouch(authority, leaf) if good else keeping.issue(authority, order, leaf)
        except ValueError as error:
            raise MeshctlError(f"{error}.", Exit.USAGE) from error
        _show_done(done, output, dry_run=dry_run)


@app.command()
def show(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE", help="Files or directories; else the mesh's."),
    ] = None,
    mesh: MeshOption = None,
    output: Output = Format.TABLE,
) -> None:
    """Show certificates, and how many days each has left."""
    if files:
        found = tuple(one for place in files for one in _in(place))
    else:
        found = tuple(_of_mesh(open_mesh(mesh)))
    if output is Format.JSON:
        show_json(found)
        return
    say(_table(found))
    for line in expiry.warnings(found, time.time()):
        complain(line)


app.command("list", help="The same as show.")(show)


def _keys(cluster: str, mesh: Path | None) -> Keys:
    """Where a cluster's Secrets have its authority."""
    from clustermesh.meshctl.kube import ca as kube  # its packages are needed for contexts only

    return kube.keys(kube.seat(cluster, mesh))


def _in_secrets(
    kind: Kind, cluster: str, peer: str, mesh: Path | None
) -> tuple[Authority, Leaf, str]:
    """The authority there, the certificate's Secret, the namespace of the Service."""
    from clustermesh.meshctl.kube import ca as kube

    if peer not in ("", cluster):
        raise MeshctlError(
            f"the Secret of kind remote is that of {cluster} itself: --peer {cluster}; for {peer}"
            f" to read {cluster}: meshctl connect.",
            Exit.USAGE,
        )
    seat = kube.seat(cluster, mesh)
    return kube.authority(seat), kube.leaf(seat, kind), seat.namespace


def named(cluster: str) -> str:
    """What can be a cluster's name. Raises ``MeshctlError``."""
    try:
        return issuing.cluster_name(cluster)
    except ValueError as error:
        raise MeshctlError(f"{error}.", Exit.USAGE) from error


def _of_mesh(mesh: Mesh) -> Iterator[CertificateStatus]:
    for one in mesh.clusters:
        if one.context:
            from clustermesh.meshctl.kube import ca as kube

            yield from kube.certificates(kube.seat_of(one))
    places = [place for it in mesh.clusters for place in (it.ca_cert.parent, it.config_dir)]
    for place in dict.fromkeys(places):
        if place != Path():
            yield from _in(place)


def _in(place: Path) -> list[CertificateStatus]:
    paths = sorted(place.glob("*.crt")) if place.is_dir() else [place]
    if not place.exists():
        raise CertificateError(f"there is no {place}")
    found = [one for path in paths for one in expiry.described(path, path.name, expiry.each)]
    if not found and place.is_file():
        raise CertificateError(f"{place} holds no certificate in PEM")
    return found


def _table(found: tuple[CertificateStatus, ...]) -> str:
    now = time.time()
    rows = [
        (it.file, it.subject, "CA" if it.authority else "", it.fingerprint[:16],
         time.strftime("%Y-%m-%d", time.gmtime(it.not_after)), str(expiry.days_left(it, now)))
        for it in found
    ]  # fmt: skip
    return columns(("FILE", "SUBJECT", "KIND", "FINGERPRINT", "ENDS", "DAYS LEFT"), rows)


def _show_done(done: Kept, output: Format, *, dry_run: bool) -> None:
    files = tuple(map(done.shelf.where, done.names))
    found = (
        ()
        if dry_run
        else tuple(
            one
            for name in done.names
            if name.endswith(".crt")
            for one in expiry.of(done.shelf.read(name), name, done.shelf.where(name))
        )
    )
    if output is Format.JSON:
        show_json(Done(changed=done.changed, dry_run=dry_run, files=files, certificates=found))
        return
    if not done.changed:
        say("nothing to do: it is there and good")
    elif dry_run:
        say("\n".join(("would write:", *(f"  {it}" for it in files))))
    else:
        say("written:")
    if found:
        say(_table(found))
