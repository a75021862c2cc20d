"""``meshctl verify``: does it work, end to end? Asked of every node, through the data path."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from clustermesh.audit import AuditReport
from clustermesh.findings import Knocked, ProbeAnswer
from clustermesh.lab import knocking
from clustermesh.lab.errors import LabError
from clustermesh.lab.paths import Paths
from clustermesh.lab.state import load
from clustermesh.meshctl import api, junit
from clustermesh.meshctl.context import CHOSEN, MeshOption, NodeOption, mesh_path, open_mesh
from clustermesh.meshctl.errors import Exit, MeshctlError
from clustermesh.meshctl.junit import Case
from clustermesh.meshctl.output import Format, Output, columns, say, show_json
from clustermesh.meshfile import Cluster, Mesh, Node, full_name
from clustermesh.status import AgentStatus, RemoteStatus, ServiceStatus

PATIENCE: Final = 60.0
"""Seconds for one question to an agent."""
MOST: Final = 32
"""Frontends, and backends, that one node tries."""
STALE: Final = 120.0
KNOWN: Final = ("/TCP", "/UDP")
"""Protocols that can be tried; of SCTP there are maps only."""


class Verified(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """Every check that was made; ``ok``: all of them passed, and there were some."""

    ok: bool
    checks: tuple[Case, ...]


class Checked(Exception):
    """A check did not pass; the text is a sentence."""


def verify(
    mesh: MeshOption = None,
    node: NodeOption = "",
    output: Output = Format.TABLE,
    *,
    junit_file: Annotated[
        Path | None,
        typer.Option("--junit", metavar="FILE", help="Write a JUnit report.", show_default=False),
    ] = None,
    audit: Annotated[bool, typer.Option(help="Compare the maps with the etcds, too.")] = True,
) -> None:
    """Check the mesh end to end, from every node.

    Through its own data path. Per node: the agent is ready; each remote cluster is synced and
    its heart beats; its nodes answer through the overlay; every global service answers on its
    address, and each of its backends directly; the maps are what the etcds say. In a lab a pod
    of each node tries the services, too. A UDP service must not refuse a datagram. Exit code 1
    when a check fails.
    """
    if junit_file is not None and not junit_file.absolute().parent.is_dir():
        raise MeshctlError(f"--junit: there is no directory {junit_file.parent}.", Exit.USAGE)
    opened = open_mesh(mesh)
    found = run(opened, node, audit=audit, lab=_lab(mesh))
    if junit_file is not None:
        junit.write(junit_file, "meshctl verify", found.checks)
    if output is Format.JSON:
        show_json(found)
    else:
        say(render(found.checks))
    failed = [one for one in found.checks if one.failure]
    if failed:
        first = failed[0]
        raise MeshctlError(
            f"{len(failed)} of {len(found.checks)} checks failed: {first.suite}: {first.name}:"
            f" {first.failure}"
        )
    if not found.ok:
        raise MeshctlError("there was nothing to check: the mesh file names no nodes.")


def run(mesh: Mesh, node: str = "", *, audit: bool = True, lab: Paths | None = None) -> Verified:
    """Every node at the same time; the checks of one node one after the other.

    ``lab``: whose pods may be entered; nobody else's can.
    """
    pairs = mesh.nodes(node)
    with ThreadPoolExecutor(max_workers=8) as pool:
        parts = pool.map(lambda it: list(_node(*it, audit=audit, lab=lab)), pairs)
        checks = tuple(case for part in parts for case in part)
    return Verified(ok=bool(checks) and not any(it.failure for it in checks), checks=checks)


def render(checks: Sequence[Case]) -> str:
    """A line per check, and how many passed."""
    rows = [
        ("FAILED" if it.failure else "ok", it.suite, it.name, it.failure or it.said)
        for it in checks
    ]
    failed = sum(bool(it.failure) for it in checks)
    end = f"{failed} of {len(checks)} checks failed" if failed else f"{len(checks)} checks passed"
    return f"{columns(('RESULT', 'NODE', 'CHECK', 'SEEN'), rows)}\n\n{end}"


def _lab(given: Path | None) -> Paths | None:
    """The lab whose mesh file is meant, if it is one's."""
    if CHOSEN.get().contexts:
        return None
    top = mesh_path(given).absolute().parent
    found = Paths(top.name, top.parent)
    return found if load(found) is not None else None


def _node(cluster: Cluster, node: Node, *, audit: bool, lab: Paths | None) -> Iterator[Case]:
    name, url = full_name(cluster, node), node.agent
    status: list[AgentStatus] = []

    def agent() -> str:
        status.append(api.fetch(url, "/v1/status", AgentStatus, timeout=PATIENCE))
        if not status[0].ready:
            raise Checked("; ".join(status[0].trouble) or "it says that it is not ready")
        return f"ready, release {status[0].version}"

    yield _check(name, "the agent is ready", agent)
    if not status:
        return
    for remote in status[0].remotes:
        peer = remote.name
        yield _check(name, f"{peer} is synced", partial(_synced, remote))
        yield _check(name, f"nodes of {peer} answer", partial(_answers, url, peer))
    yield from _services(cluster, node, lab)
    if audit:
        yield _check(name, "the maps are what the etcds say", lambda: _audited(url))


def _synced(remote: RemoteStatus) -> str:
    if not remote.ready:
        raise Checked(remote.held or remote.status or "not synced yet")
    if remote.heartbeat_age is not None and remote.heartbeat_age > STALE:
        raise Checked(f"no heartbeat for {remote.heartbeat_age:.0f} s")
    return f"{remote.num_nodes} nodes, {remote.num_endpoints} endpoints"


def _answers(url: str, cluster: str) -> str:
    path = f"/v1/probes/now?cluster={cluster}"
    told = api.fetch(url, path, tuple[ProbeAnswer, ...], timeout=PATIENCE)
    if not told:
        raise Checked("none of its nodes has an address in the overlay")
    if silent := [it.address for it in told if it.rtt is None]:
        raise Checked(f"no answer through the overlay from {', '.join(silent)}")
    return f"{len(told)} through the overlay, {max(it.rtt or 0 for it in told) * 1000:.1f} ms"


def _services(cluster: Cluster, node: Node, lab: Paths | None) -> Iterator[Case]:
    """Frontends of global services with a backend that is used, and those backends."""
    name, url = full_name(cluster, node), node.agent
    found: list[ServiceStatus] = []

    def told() -> str:
        every = api.fetch(url, "/v1/services", tuple[ServiceStatus, ...], timeout=PATIENCE)
        found.extend(it for it in every if it.is_global and _is_for_sockets(it))
        return f"{len(found)} addresses of global services"

    yield _check(name, "services are told", told)
    fronts = {_target(it.frontend): it for it in found if any(b.used for b in it.backends)}
    backs = dict.fromkeys(
        _target(f"{b.address}/{it.frontend.rpartition('/')[2]}")
        for it in fronts.values()
        for b in it.backends
        if b.used
    )
    for what, targets in (("service", list(fronts)), ("backend", list(backs))):
        for one in _knocked(url, targets[:MOST]):
            yield _case(name, f"{what} {_named(one.target, fronts)}", one)
    if lab is not None and fronts:
        yield from _from_pod(cluster, node, lab, fronts)


def _is_for_sockets(service: ServiceStatus) -> bool:
    return service.frontend.endswith(KNOWN) and not service.source_ranges


def _from_pod(
    cluster: Cluster, node: Node, lab: Paths, fronts: Mapping[str, ServiceStatus]
) -> Iterator[Case]:
    """The same services, from a pod's own network namespace."""
    name = full_name(cluster, node)
    try:
        pod = knocking.first_pod(lab, cluster.name, node.name)
        told = knocking.knock(lab, cluster.name, pod, list(fronts)[:MOST]) if pod else []
    except LabError as error:
        yield Case(suite=name, name="a pod tries the services", failure=str(error))
        return
    for one in told:
        yield _case(name, f"from pod {pod}: service {_named(one.target, fronts)}", one)


def _named(target: str, fronts: Mapping[str, ServiceStatus]) -> str:
    service = fronts.get(target)
    return f"{target} ({service.namespace}/{service.name})" if service else target


def _case(suite: str, what: str, told: Knocked) -> Case:
    said = "not refused" if told.seconds is None else f"{told.seconds * 1000:.1f} ms"
    return Case(
        suite=suite,
        name=f"{what} answers",
        failure=told.error,
        said="" if told.error else said,
        seconds=told.seconds or 0.0,
    )


def _target(frontend: str) -> str:
    """As an agent is asked to try it; TCP goes without saying."""
    return frontend.removesuffix("/TCP")


def _knocked(url: str, targets: Sequence[str]) -> Sequence[Knocked]:
    if not targets:
        return ()
    try:
        body = {"targets": ",".join(targets)}
        return api.ask(url, "/v1/knock", body, tuple[Knocked, ...], timeout=PATIENCE)
    except api.NoAnswer as error:
        return [Knocked(target=target, error=str(error)) for target in targets]


def _audited(url: str) -> str:
    report = api.fetch(url, "/v1/audit", AuditReport, timeout=PATIENCE)
    if report.differences:
        first = report.differences[0].sentence()
        raise Checked(f"{len(report.differences)} differences: {first}")
    if report.unaudited:
        raise Checked(f"not audited: {report.unaudited[0]}")
    return f"{sum(report.entries.values())} entries"


def _check(suite: str, name: str, what: Callable[[], str]) -> Case:
    began = time.monotonic()
    said = failure = ""
    try:
        said = what()
    except (Checked, api.NoAnswer) as error:
        failure = str(error)
    return Case(
        suite=suite, name=name, said=said, failure=failure, seconds=time.monotonic() - began
    )
