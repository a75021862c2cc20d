"""``meshctl audit``: do the maps hold what the etcds say? Differences are named, then mended."""

from typing import Annotated

import msgspec
import typer

from clustermesh.audit import AuditReport
from clustermesh.meshctl import api
from clustermesh.meshctl.context import MeshOption, NodeOption, open_mesh
from clustermesh.meshctl.errors import Exit, MeshctlError
from clustermesh.meshctl.output import Format, Output, complain, duration, say, show_json
from clustermesh.meshfile import full_name

TIMEOUT = 300.0
PATH = "/v1/audit"

Reports = dict[str, AuditReport]


def audit(
    mesh: MeshOption = None,
    node: NodeOption = "",
    output: Output = Format.TABLE,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Mend what differs, after naming it.")] = False,
) -> None:
    """Compare every node's maps with what the etcds say.

    The agent of each node reads the etcds and the kernel anew and computes what must be there in
    another way than it did before. What differs is read again before it is called a difference.
    Exit code 1: something differs, and was not mended.
    """
    agents = {full_name(*it): it[1].agent for it in open_mesh(mesh).nodes(node)}
    silent: list[str] = []
    found: Reports = {}
    for name, url in agents.items():
        try:
            found[name] = _one(name, url, output, mend=yes)
        except api.NoAnswer as error:
            silent.append(f"{name}: {error}")
    if output is Format.JSON:
        show_json(msgspec.to_builtins(found))
    for line in silent:
        complain(line)
    if silent:
        raise MeshctlError(
            f"{len(silent)} of {len(agents)} agents do not answer.", Exit.UNREACHABLE
        )
    if differing := [name for name, report in found.items() if report.differences]:
        hint = "" if yes else "; mend with --yes"
        raise MeshctlError(f"maps differ from the etcds on {', '.join(differing)}{hint}")


def _one(name: str, url: str, output: Format, *, mend: bool) -> AuditReport:
    """What a node's agent reports; with ``mend`` the report after mending."""
    report = api.fetch(url, PATH, AuditReport, timeout=TIMEOUT)
    if output is Format.TABLE:
        say(as_text(name, report))
    if not (mend and report.differences):
        return report
    mended = api.post(url, PATH, AuditReport, timeout=TIMEOUT)
    if output is Format.TABLE:
        say(f"{name}: mended {mended.mended} entries; compared again:")
        say(as_text(name, mended))
    return mended


def as_text(name: str, report: AuditReport) -> str:
    """The result in a line, then a line for each difference and for what could not be told."""
    number = len(report.differences)
    result = f"{number or 'no'} difference{'' if number <= 1 else 's'}"
    size = f"{sum(report.entries.values())} entries of {len(report.entries)} tables"
    lines = [f"{name}: {result} in {size} ({duration(report.took)}, {_revisions(report)})"]
    lines += [f"  {difference.sentence()}" for difference in report.differences]
    lines += [f"  not audited: {sentence}" for sentence in report.unaudited]
    if report.settled:
        lines.append(f"  {report.settled} differences were changes on their way")
    return "\n".join(lines)


def _revisions(report: AuditReport) -> str:
    """Lists of one etcd are read one after the other, so there may be two ends."""
    parts = []
    for cluster, revisions in sorted(report.revisions.items()):
        lists = [it for kind, it in revisions.items() if kind != "cluster-config"]
        first, last = min(lists, default=0), max(lists, default=0)
        parts.append(f"{cluster} at revision {last if first == last else f'{first}-{last}'}")
    return ", ".join(parts)
