"""``meshctl ca rotate``: a new authority takes over, a step at a time, each verified in use."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from clustermesh.findings import Diagnosis, Finding, Result
from clustermesh.meshctl import api, completing
from clustermesh.meshctl.context import MeshOption, open_mesh
from clustermesh.meshctl.errors import Exit, MeshctlError
from clustermesh.meshctl.output import Format, Output, complain, say, show_json
from clustermesh.meshctl.places import known, place_of
from clustermesh.meshctl.troubleshoot import rows
from clustermesh.meshfile import Cluster, Mesh
from clustermesh.pki import Authority, KeyPair
from clustermesh.places.shelf import Folder, rehearsed
from clustermesh.status import ApiserverStatus, Probed
from clustermesh.trust import issuing, users
from clustermesh.trust.keeping import Keys
from clustermesh.trust.rotation import Rotation, Step

PATIENCE = 20.0
PROBE = "clustermesh-probe"
RESTART = (
    "restart the etcd of {0}, which reads the authorities it trusts at its start only,"
    " then run this again; readers take up where they were"
)


class Taken(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """A step: what was changed, and what new connections make of it."""

    step: Step
    changes: tuple[str, ...]
    findings: tuple[Finding, ...] = ()


def rotate(
    cluster: Annotated[str, completing.cluster_argument("Whose authority.")],
    mesh: MeshOption = None,
    step: Annotated[
        Step | None,
        typer.Option(metavar="STEP", help="Only up to trust, issue or drop; else to the end."),
    ] = None,
    also: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Another directory with its certificates."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Go on whatever a check says.")] = False,  # noqa: FBT002  # typer makes it a flag
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is next.")] = False,  # noqa: FBT002  # typer makes it a flag
    output: Output = Format.TABLE,
) -> None:
    """Replace a cluster's authority, step by step.

    Trust both, issue anew, drop the old one. An interrupted run is taken up where it was.
    Connections that are open stay; keys of certificates stay as they are, only that of the
    authority is new.
    """
    opened = open_mesh(mesh)
    member = known(opened.cluster(cluster))
    rotation = _rotation(opened, member, also or ())
    taken: list[Taken] = []
    for one in _steps(rotation, step):
        if dry_run:
            taken.append(Taken(step=one, changes=_rehearse(rotation, one)))
            break
        if one is Step.DROP and not force:
            _only_ours(opened, member)
        taken.append(_take(opened, member, rotation, one))
        if output is Format.TABLE:
            say(_told(taken[-1]))
        if not force:
            _judge(taken[-1], taken if output is Format.JSON else ())
    if output is Format.JSON:
        show_json(taken)
    elif dry_run:
        say("\n".join(("would do next:", *(f"  {it}" for one in taken for it in one.changes))))


def _steps(rotation: Rotation, last: Step | None) -> list[Step]:
    """Those that are to be taken: a step that is begun is begun again."""
    order = list(Step)
    first = order.index(rotation.done) if rotation.done else 0
    end = order.index(last) if last else len(order) - 1
    if rotation.done is None and last is Step.DROP:
        return []
    return order[first : end + 1]


def _rehearse(rotation: Rotation, step: Step) -> tuple[str, ...]:
    """What the step would change now; an API server that would refuse it says so."""
    with rehearsed(really=True):
        changes = []
        for change in rotation.changes(step):
            change.do()
            changes.append(change.what)
        return tuple(changes)


def _take(mesh: Mesh, member: Cluster, rotation: Rotation, step: Step) -> Taken:
    before = rotation.predecessor()
    believed = (
        step is Step.DROP
        and before is not None
        and (bool(member.context) or _probe(member, *_as(before, rotation)).ok)
    )
    changes = []
    for change in rotation.changes(step):
        change.do()
        changes.append(change.what)
    if believed:
        complain(
            f"the etcd of {member.name} believes certificates of the old authority until it is"
            " restarted; restart it when it suits you"
        )
    return Taken(
        step=step,
        changes=tuple(changes),
        findings=tuple(_verified(mesh, member, rotation, step)),
    )


def _verified(mesh: Mesh, member: Cluster, rotation: Rotation, step: Step) -> Iterator[Finding]:
    """What a new connection makes of it: to the own etcd, and from every peer of this mesh."""
    successor = rotation.successor()
    bundle = successor.bundle if step is Step.TRUST else successor.certificate
    if member.context:
        yield _served(member, step)
        yield from _peers(mesh, member)
        return
    for owner in mesh.clusters:
        if _shares(owner, member):
            found = _probe(owner, issuing.short_lived(successor, PROBE), bundle)
            yield Finding(
                code="CA_TAKEN" if found.ok else "CA_REFUSED",
                result=Result.OK if found.ok else Result.FAILED,
                where=f"etcd of {owner.name}",
                seen=f"takes a certificate of {successor.root.subject.rfc4514_string()}"
                if found.ok
                else found.said,
                fix="" if found.ok else RESTART.format(owner.name),
            )
            yield from _peers(mesh, owner)


def _served(member: Cluster, step: Step) -> Finding:
    """In Kubernetes: whether the etcd presents what its Secret holds by now."""
    from clustermesh.meshctl.kube import ca as kube

    where = f"etcd of {member.name}"
    if step is Step.TRUST:
        return Finding(
            code="CA_UNTRIED", result=Result.WARNING, where=where,
            seen="whether it takes a certificate of the new authority cannot be tried from here",
            fix="nothing, if its next step goes well: certificates carry the old one's word along",
        )  # fmt: skip
    wanted = kube.server_fingerprint(kube.seat_of(member))
    try:
        status = api.fetch(member.apiserver, "/v1/status", ApiserverStatus)
        served = [it.fingerprint for it in status.certificates if it.what.startswith("server of")]
        said = "it still presents the certificate of before"
    except api.NoAnswer as error:
        served, said = [], f"not known, since its apiserver is silent: {error}"
    if served == [wanted]:
        seen = "it presents the certificate of the new authority"
        return Finding(code="SERVER_RENEWED", result=Result.OK, where=where, seen=seen)
    return Finding(
        code="SERVER_OLD", result=Result.FAILED, where=where, seen=said,
        fix="wait: Secrets reach pods within some two minutes; then run this again",
    )  # fmt: skip


def _shares(owner: Cluster, member: Cluster) -> bool:
    """Whether two clusters of files have one authority."""
    return owner.name == member.name or (not owner.context and owner.ca_key == member.ca_key)


def _peers(mesh: Mesh, owner: Cluster) -> Iterator[Finding]:
    """A node of each peer goes the whole way with the files as they are now."""
    for reader in mesh.clusters:
        if reader is owner or not _follows(reader, owner):
            continue
        for node in reader.nodes[:1]:
            where = f"{reader.name}/{node.name} to {owner.name}"
            path = f"/v1/troubleshoot?cluster={owner.name}"
            try:
                (told,) = api.fetch(node.agent, path, tuple[Diagnosis], timeout=PATIENCE)
            except api.NoAnswer as error:
                yield Finding(
                    code="PEER_UNKNOWN", result=Result.WARNING, where=where, seen=str(error),
                    fix=f"when it answers: meshctl troubleshoot {owner.name}",
                )  # fmt: skip
                continue
            failed = [it for it in told.findings if it.result is Result.FAILED]
            yield (
                failed[0]
                if failed
                else Finding(
                    code="PEER", result=Result.OK, where=where, seen="a new connection is taken"
                )
            )


def _as(before: Authority, rotation: Rotation) -> tuple[KeyPair, bytes]:
    return issuing.short_lived(before, PROBE), rotation.authority().bundle


def _probe(owner: Cluster, pair: KeyPair, authority: bytes) -> Probed:
    body = {
        "authority": authority.decode(),
        "certificate": pair.certificate.decode(),
        "key": pair.key.decode(),
    }
    try:
        return api.ask(owner.apiserver, "/v1/trust/probe", body, Probed, timeout=PATIENCE)
    except api.NoAnswer as error:
        return Probed(ok=False, said=f"not tried, since its apiserver is silent: {error}")


def _rotation(mesh: Mesh, member: Cluster, also: Sequence[Path]) -> Rotation:
    if member.context:
        return _in_secrets(mesh, member)
    places = [it.config_dir for it in mesh.clusters if it.config_dir != Path()]
    places += [it.ca_cert.parent for it in mesh.clusters if _shares(it, member)]
    keys = Keys(Folder(member.ca_cert.parent), member.ca_cert.name, str(member.ca_key.absolute()))
    return Rotation(keys, [Folder(it) for it in (*places, *also)], name=member.name)


def _in_secrets(mesh: Mesh, member: Cluster) -> Rotation:
    """Peers' Secrets hold certificates of it, too. One authority for several clusters is refused:
    each has a copy of the key, and the copies must be equal at all times.
    """
    from clustermesh.meshctl.kube import ca as kube

    own = kube.seat_of(member)
    others = {it.name: kube.seat_of(it) for it in mesh.clusters if it.context and it != member}
    mine = kube.authority(own).root.public_key()
    same = [name for name, seat in others.items() if kube.has_key(seat, mine)]
    if same:
        raise MeshctlError(
            f"{', '.join(same)} has the same authority as {member.name}: it cannot be replaced in"
            " one of them; give each its own first, or have cert-manager do it (docs/trust.md).",
            Exit.USAGE,
        )
    return kube.rotation(own, member.name, list(others.values()))


def _only_ours(mesh: Mesh, member: Cluster) -> None:
    """Peers whose files we do not see may still have a certificate of the old authority."""
    for owner in mesh.clusters:
        if not _shares(owner, member):
            continue
        seen = {f"remote-{it.name}" for it in mesh.clusters if _follows(it, owner)}
        strangers = [it.name for it in users.read(place_of(owner)) if it.name not in seen]
        if strangers:
            raise MeshctlError(
                f"{', '.join(strangers)} may read {owner.name}, but its files are not in this mesh:"
                " have it join again with a new token, which brings it the new authority, then"
                " drop the old one with --step drop --force.",
                Exit.NOT_READY,
            )


def _follows(reader: Cluster, owner: Cluster) -> bool:
    return bool(place_of(reader).remotes.read(owner.name))


def _told(taken: Taken) -> str:
    lines = [f"step {taken.step}:", *(f"  {change}" for change in taken.changes)]
    if not taken.changes:
        lines.append("  nothing left to change")
    return "\n".join([*lines, *rows(taken.findings)])


def _judge(taken: Taken, shown: Sequence[Taken]) -> None:
    failed = [it for it in taken.findings if it.result is Result.FAILED]
    if failed:
        if shown:
            show_json(shown)
        raise MeshctlError(
            f"{failed[0].code}: {failed[0].where}: {failed[0].seen}; {failed[0].fix}.",
            Exit.NOT_READY,
        )
