"""``meshctl plan``: what connecting would change and what may keep it from working. Reads only."""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from cryptography import x509

from clustermesh.findings import Diagnosis, Finding, Premises, Reach, Result
from clustermesh.meshctl import api, completing, conditions, passing, premises
from clustermesh.meshctl.context import MeshOption, open_mesh
from clustermesh.meshctl.errors import Exit, MeshctlError
from clustermesh.meshctl.output import Format, Output, say, show_json
from clustermesh.meshctl.peering import Mode, Peering, making, peerings
from clustermesh.meshctl.places import place_of
from clustermesh.meshctl.premises import Side
from clustermesh.meshctl.troubleshoot import rows
from clustermesh.meshfile import Cluster, Mesh, Node, full_name
from clustermesh.pki import CertificateError
from clustermesh.status import ApiserverStatus, KvstoremeshStatus

if TYPE_CHECKING:
    from clustermesh.meshctl.kube.facts import Facts

PATIENCE = 20.0
SOON = timedelta(days=30)

ELSEWHERE = (
    "run meshctl where the {}'s unix socket is, or by a context with pods/exec: it tries ways for"
    " nobody else"
)

BEHIND = frozenset({"APISERVER_SILENT", "AGENT_SILENT"})
CATCHES_UP = frozenset({"AGENT_SILENT", "APISERVER_NOT_READY", "REACH_UNKNOWN"})

Clusters = Annotated[
    list[str] | None, completing.cluster_argument("Two or more; all, when none is named.")
]
Connections = Annotated[
    Mode,
    typer.Option(
        "--connection-mode",
        metavar="MODE",
        help="mesh: all with all; bidirectional: the first with each other one;"
        " unicast: only the first follows the others.",
    ),
]


class Plan(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """What would be changed, and every check's finding."""

    changes: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def failures(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.result is Result.FAILED]

    @property
    def blocking(self) -> list[Finding]:
        """Those that connecting must not ignore; an agent that is dead catches up later."""
        return [finding for finding in self.failures if finding.code not in CATCHES_UP]


def plan(
    clusters: Clusters = None,
    mesh: MeshOption = None,
    mode: Connections = Mode.MESH,
    output: Output = Format.TABLE,
) -> None:
    """Say what connecting would change, and check both sides.

    Changes nothing. Exit code 3 when a check fails.
    """
    opened = open_mesh(mesh)
    names = clusters or [cluster.name for cluster in opened.clusters]
    show(make(opened, names, mode), output)


def show(made: Plan, output: Format) -> None:
    """Print a plan; ``MeshctlError`` when a check failed."""
    if output is Format.JSON:
        show_json(made)
    else:
        say("\n".join(render(made)))
    if made.failures:
        more = f" (and {len(made.failures) - 1} more)" if len(made.failures) > 1 else ""
        first = made.failures[0]
        raise MeshctlError(f"{first.code}: {first.where}: {first.seen}{more}", Exit.NOT_READY)


def render(made: Plan) -> Iterator[str]:
    """What would change, then every check."""
    yield "would change:" if made.changes else "nothing to change"
    yield from (f"  {change}" for change in made.changes)
    yield ""
    yield from rows(made.findings)


def make(mesh: Mesh, names: Sequence[str], mode: Mode = Mode.MESH) -> Plan:
    """Read both sides, and of third members what may be in the way."""
    wanted = peerings(mesh, names, mode)
    skews: dict[str, float] = {}
    facts = {cluster.name: _facts(cluster) for cluster in mesh.clusters if cluster.context}
    sides = {cluster.name: side(cluster, skews) for cluster in mesh.clusters}
    for name, found in facts.items():
        if not isinstance(found, str):
            sides[name] = sides[name]._replace(declared=found.premises)
    chosen = [sides[name] for name in names]
    third = [side for name, side in sides.items() if name not in names]
    silent = {name for name, found in facts.items() if isinstance(found, str)}
    findings = [it for it in premises.judge(mesh, chosen, third) if not _follows(it, silent)]
    findings += conditions.judge(chosen, skews)
    for each in chosen:
        findings += _of_kubernetes(each, wanted, chosen, facts)
    findings += passing.judge(chosen)
    trusted = []
    for cluster in (side.cluster for side in chosen if side.cluster.name not in silent):
        finding = authority(cluster)
        findings.append(finding)
        if finding.result is not Result.FAILED:
            trusted.append(cluster.name)
    unexposed = (it.source.name for it in wanted if not it.source.endpoints)
    for unknown in dict.fromkeys(name for name in unexposed if name not in silent):
        findings.append(_unexposed(unknown))
        trusted = [name for name in trusted if name != unknown]
    usable = [it for it in wanted if it.source.name in trusted and it.reader.name not in silent]
    for peering in usable:
        findings += _reached(peering, sides[peering.reader.name])
    return Plan(
        changes=tuple(change.what for peering in usable for change in making(peering)),
        findings=tuple(findings),
    )


def side(cluster: Cluster, skews: dict[str, float]) -> Side:
    """A cluster as its processes tell it; ``skews`` gets how far each node's clock is before
    ours, as well as the time that the answer took allows.
    """

    def premises_of(agent: str) -> tuple[Premises | str, float]:
        asked = time.time()
        found = _asked(agent, "/v1/premises", Premises)
        return found, (asked + time.time()) / 2

    agents = {full_name(cluster, it): it.agent for it in cluster.nodes if it.agent}
    nodes: dict[str, Premises | str] = {}
    with ThreadPoolExecutor(max_workers=api.AT_ONCE) as pool:
        for name, (found, ours) in zip(agents, pool.map(premises_of, agents.values()), strict=True):
            nodes[name] = found
            if isinstance(found, Premises) and found.clock:
                skews[name] = found.clock - ours
    return Side(cluster, _asked(cluster.apiserver, "/v1/status", ApiserverStatus), nodes)


def _facts(cluster: Cluster) -> "Facts | str":
    """A text: why its API server does not answer."""
    from clustermesh.meshctl.kube import facts

    try:
        return facts.read(cluster)
    except api.NoAnswer as error:
        return str(error)


def _follows(finding: Finding, silent: Collection[str]) -> bool:
    """Whether it is about processes that are asked through an API server that is silent."""
    return finding.code in BEHIND and finding.where.partition("/")[0] in silent


def _of_kubernetes(
    side: Side,
    wanted: Sequence[Peering],
    chosen: Sequence[Side],
    facts: "Mapping[str, Facts | str]",
) -> Iterator[Finding]:
    name = side.cluster.name
    found = facts.get(name)
    if isinstance(found, str):
        yield Finding(
            code="KUBERNETES_SILENT", result=Result.FAILED, where=name, seen=found,
            fix="see what `kubectl --context` of it says: renew its credentials, or bring the API"
            " server back",
        )  # fmt: skip
    elif found is not None:
        from clustermesh.meshctl.kube import checks

        readers = [it.reader.name for it in wanted if it.source.name == name]
        others = [it for each in chosen if each is not side for it in each.known]
        ranges = sorted({cidr for it in others for cidr in it.pod_ranges})
        yield from checks.judge(side.cluster, found, readers, ranges)


def _unexposed(cluster: str) -> Finding:
    return Finding(
        code="ENDPOINT_NONE",
        result=Result.FAILED,
        where=cluster,
        seen="nobody knows how other clusters reach its etcd",
        fix="give the mesh file `endpoints`; in Kubernetes make its Service clustermesh-apiserver"
        " a LoadBalancer or NodePort and wait for its address",
    )


def _asked(url: str, path: str, kind: type[api.T]) -> api.T | str:
    try:
        return api.fetch(url, path, kind)
    except api.NoAnswer as error:
        return str(error)


def authority(cluster: Cluster, *, now: datetime | None = None) -> Finding:
    """Whether the cluster's CA can sign a certificate that will be taken."""
    where = f"context {cluster.context}" if cluster.context else str(cluster.ca_cert)
    fix = "give the mesh file the CA that signs the certificates of the cluster's etcd"
    try:
        pem = place_of(cluster).authority().certificate
    except (CertificateError, api.NoAnswer) as error:
        return Finding(
            code="CA_UNUSABLE", result=Result.FAILED, where=where, seen=str(error), fix=fix
        )
    until = x509.load_pem_x509_certificate(pem).not_valid_after_utc
    left = until - (now or datetime.now(UTC))
    seen, fix = f"valid until {until:%Y-%m-%d}", "make a new CA and let both be trusted for a time"
    if left <= timedelta():
        return Finding(
            code="CA_EXPIRED", result=Result.FAILED, where=where, seen=f"expired: {seen}", fix=fix
        )
    if left < SOON:
        return Finding(code="CA_EXPIRES", result=Result.WARNING, where=where, seen=seen, fix=fix)
    return Finding(code="CA", result=Result.OK, where=where, seen=seen)


def _reached(peering: Peering, reader: Side) -> Iterator[Finding]:
    """The way to the source's etcd, tried by every agent of the reader that answers; where a
    kvstoremesh makes the connection, by that.

    Where the two are connected already, with the reader's own certificate and to the end.
    """
    connected = not list(making(peering))
    if peering.reader.kvstoremesh:
        yield from _copied(peering, connected=connected)
        return
    try_ = _authorised if connected else _reachable
    code = "ETCD_AUTHORISED" if connected else "ETCD_REACHED"

    def tried(node: Node) -> list[Finding]:
        where = f"{full_name(peering.reader, node)} to {peering.source.name}"
        try:
            return list(_summary(try_(node.agent, peering.source), where, code))
        except api.NoAnswer as error:
            unknown = Finding(
                code="REACH_UNKNOWN", result=Result.FAILED, where=where, seen=str(error),
                fix=ELSEWHERE.format("agent"),
            )  # fmt: skip
            return [unknown]

    answering = {name for name, said in reader.nodes.items() if isinstance(said, Premises)}
    nodes = [it for it in peering.reader.nodes if full_name(peering.reader, it) in answering]
    with ThreadPoolExecutor(max_workers=api.AT_ONCE) as pool:
        for findings in pool.map(tried, nodes):
            yield from findings


def _copied(peering: Peering, *, connected: bool) -> Iterator[Finding]:
    url, source = peering.reader.kvstoremesh, peering.source
    where = f"kvstoremesh of {peering.reader.name} to {source.name}"
    try:
        found = list(_reachable(url, source))
        if connected and not any(it.result is Result.FAILED for it in found):
            found.append(_copy(api.fetch(url, "/v1/status", KvstoremeshStatus), source.name))
    except api.NoAnswer as error:
        yield Finding(
            code="REACH_UNKNOWN", result=Result.FAILED, where=where, seen=str(error),
            fix=ELSEWHERE.format("kvstoremesh"),
        )  # fmt: skip
        return
    yield from _summary(found, where, "ETCD_AUTHORISED" if connected else "ETCD_REACHED")


def _copy(status: KvstoremeshStatus, source: str) -> Finding:
    """What the kvstoremesh makes of a cluster that it is to copy."""
    remote = next((it for it in status.remotes if it.name == source), None)
    if remote is not None and remote.ready:
        seen = f"{remote.num_nodes} nodes, {remote.num_endpoints} endpoints are copied"
        return Finding(code="SYNCED", result=Result.OK, where=source, seen=seen)
    why = remote and (remote.status or remote.last_failure_reason)
    return Finding(
        code="NOT_SYNCED", result=Result.FAILED, where=source,
        seen=why or f"it copies nothing of {source}: {status.role}",
        fix="see `kvstoremesh status` there, and its log",
    )  # fmt: skip


def _reachable(agent: str, source: Cluster) -> Sequence[Finding]:
    asked = Reach(
        endpoints=source.endpoints,
        host_aliases=source.host_aliases,
        authority=place_of(source).authority().bundle.decode("ascii"),
    )
    body = {"reach": msgspec.json.encode(asked).decode()}
    return api.ask(agent, "/v1/reach", body, tuple[Finding, ...], timeout=PATIENCE)


def _authorised(agent: str, source: Cluster) -> Sequence[Finding]:
    path = f"/v1/troubleshoot?cluster={source.name}"
    (found,) = api.fetch(agent, path, tuple[Diagnosis], timeout=PATIENCE)
    return found.findings


def _summary(found: Sequence[Finding], where: str, code: str) -> Iterator[Finding]:
    """What is not well; or one line, when the way leads to its end."""
    bad = [one for one in found if one.result in (Result.FAILED, Result.WARNING)]
    for one in bad:
        yield msgspec.structs.replace(one, where=f"{where}, {one.where}")
    if (
        found
        and found[-1].result is Result.OK
        and not any(one.result is Result.FAILED for one in bad)
    ):
        yield msgspec.structs.replace(found[-1], code=code, where=where)
