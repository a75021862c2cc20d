"""``meshctl troubleshoot``: every node tries the way to every remote cluster, stage by stage."""

import re
from collections.abc import Iterator, Sequence
from typing import Annotated

import msgspec

from clustermesh.findings import Diagnosis, Finding, Result
from clustermesh.meshctl import api, completing
from clustermesh.meshctl.context import MeshOption, NodeOption, open_mesh
from clustermesh.meshctl.errors import Exit, MeshctlError
from clustermesh.meshctl.output import Format, Output, columns, say, show_json
from clustermesh.meshfile import Mesh, full_name

PATIENCE = 30.0
"""Seconds for an agent to try every stage towards every cluster."""
DEEP = re.compile(r"(?<!\S)/\S{16,}/([^/\s]+/[^/\s]+/[^/\s]+)")
"""A path of which a column shows the end only."""

Remote = Annotated[str, completing.cluster_option("Only the way to this cluster.")]


class Troubles(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """What each node found; ``silent`` are nodes whose agent does not answer, and why."""

    diagnoses: tuple[Diagnosis, ...]
    silent: dict[str, str] = {}

    @property
    def failures(self) -> list[tuple[Diagnosis, Finding]]:
        return [
            (diagnosis, finding)
            for diagnosis in self.diagnoses
            for finding in diagnosis.findings
            if finding.result is Result.FAILED
        ]


def troubleshoot(
    mesh: MeshOption = None,
    cluster: Remote = "",
    node: NodeOption = "",
    output: Output = Format.TABLE,
) -> None:
    """Find what keeps a node from a remote cluster's facts.

    Each node's own agent tries the way. Stages: file, client certificate, DNS, TCP, TLS, etcd
    and its config, heartbeat, canaries, lists, values, use. The first that fails is the cause.
    Exit code 3 when something fails.
    """
    opened = open_mesh(mesh)
    if cluster:
        opened.cluster(cluster)
    found = gather(opened, cluster, node)
    if output is Format.JSON:
        show_json(found)
    else:
        say("\n".join(render(found)))
    if found.silent:
        raise MeshctlError(f"{len(found.silent)} agents do not answer.", Exit.UNREACHABLE)
    if found.failures:
        diagnosis, finding = found.failures[0]
        more = f" (and {len(found.failures) - 1} more)" if len(found.failures) > 1 else ""
        raise MeshctlError(
            f"{diagnosis.cluster}/{diagnosis.node} to {diagnosis.remote}: {finding.seen}{more}",
            Exit.NOT_READY,
        )


def gather(mesh: Mesh, remote: str = "", node: str = "") -> Troubles:
    """Ask every agent; nobody is asked about the own cluster."""
    path = f"/v1/troubleshoot?cluster={remote}" if remote else "/v1/troubleshoot"
    asked = {full_name(*it): it[1].agent for it in mesh.nodes(node) if it[0].name != remote}
    found, silent = api.fetch_all(asked, path, tuple[Diagnosis, ...], timeout=PATIENCE)
    return Troubles(diagnoses=tuple(it for one in found.values() for it in one), silent=silent)


def render(found: Troubles) -> Iterator[str]:
    """A block for each way, and what to do about what is not well."""
    if not found.diagnoses and not found.silent:
        yield "no cluster is connected to another: meshctl connect"
    for diagnosis in found.diagnoses:
        yield f"{diagnosis.cluster}/{diagnosis.node} to {diagnosis.remote}: {_verdict(diagnosis)}"
        yield from (f"  {line}" for line in rows(diagnosis.findings))
    for node, reason in found.silent.items():
        yield f"{node}: its agent does not answer: {reason}"
        yield "  fix: start clustermesh-agent on the node; its log says why it ended"


def rows(findings: Sequence[Finding]) -> Iterator[str]:
    """Findings in columns; what is not well has its whole place and its fix on lines below."""
    places = [DEEP.sub(r".../\1", one.where) for one in findings]
    cells = [
        (one.result.value, one.code, place, one.seen)
        for one, place in zip(findings, places, strict=True)
    ]
    header, *lines = columns(("RESULT", "CHECK", "WHERE", "SEEN"), cells).splitlines()
    yield header
    for line, one, place in zip(lines, findings, places, strict=True):
        yield line
        if one.fix:
            if place != one.where:
                yield f"  where: {one.where}"
            yield f"  fix: {one.fix}"


def _verdict(diagnosis: Diagnosis) -> str:
    worst = {finding.result for finding in diagnosis.findings}
    if Result.FAILED in worst:
        return "FAILED"
    return "works, with warnings" if Result.WARNING in worst else "works"
