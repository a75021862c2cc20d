"""``meshctl verify``: does it work, end to end? Asked of every node, through the data path."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from clustermesh.audit import AuditReport
from clustermesh.findings import Knocked, ProbeAnswer
from clustermesh.meshctl import api, junit
from clustermesh.meshctl.context import MeshOption, NodeOption, open_mesh
from clustermesh.meshctl.errors import MeshctlError
from clustermesh.meshctl.junit import Case
from clustermesh.meshctl.output import Format, Output, columns, say, show_json
from clustermesh.meshfile import Mesh, full_name
from clustermesh.status import AgentStatus, RemoteStatus, ServiceStatus

PATIENCE: Final = 60.0
"""Seconds for one question to an agent."""
MOST: Final = 32
"""Frontends, and backends, that one node tries."""
STALE: Final = 120.0


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
        Path | None, typer.Option("--junit", help="Write a JUnit report.", show_default=False)
    ] = None,
    audit: Annotated[bool, typer.Option(help="Compare the maps with the etcds, too.")] = True,
) -> None:
    """Check the mesh end to end, from every node through its own data path.

    Per node: the agent is ready; each remote cluster is synced and its heart beats; its nodes
    answer through the overlay; every global service answers on its address, and each of its
    backends directly (TCP); the maps are what the etcds say. Exit code 1 when a check fails.
    """
    found = run(open_mesh(mesh), node, audit=audit)
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


def run(mesh: Mesh, node: str = "", *, audit: bool = True) -> Verified:
    """Every node at the same time; the checks of one node one after the other."""
    pairs = mesh.nodes(node)
    with ThreadPoolExecutor(max_workers=8) as pool:
        parts = pool.map(lambda it: list(_node(full_name(*it), it[1].agent, audit=audit)), pairs)
        checks = tuple(case for part in parts for case in part)
    return Verified(ok=bool(checks) and not any(it.failure for it in checks), checks=checks)


def render(checks: Sequence[Case]) -> str:
    """A line per check."""
    rows = [
        ("FAILED" if it.failure else "ok", it.suite, it.name, it.failure or it.said)
        for it in checks
    ]
    return columns(("RESULT", "NODE", "CHECK", "SEEN"), rows)


def _node(name: str, url: str, *, audit: bool) -> Iterator[Case]:
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
    yield from _services(name, url)
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


def _services(name: str, url: str) -> Iterator[Case]:
    """Frontends of global services with a backend that is used, and those backends."""
    found: list[ServiceStatus] = []

    def told() -> str:
        every = api.fetch(url, "/v1/services", tuple[ServiceStatus, ...], timeout=PATIENCE)
        found.extend(it for it in every if it.is_global and _is_for_sockets(it))
        return f"{len(found)} addresses of global services"

    yield _check(name, "services are told", told)
    fronts = {_spot(it.frontend): it for it in found if any(b.used for b in it.backends)}
    backs = dict.fromkeys(b.address for it in fronts.values() for b in it.backends if b.used)
    for what, targets in (("service", list(fronts)), ("backend", list(backs))):
        for told_ in _knocked(url, targets[:MOST]):
            service = fronts.get(told_.target)
            of = f" ({service.namespace}/{service.name})" if service else ""
            yield Case(
                suite=name,
                name=f"{what} {told_.target}{of} answers",
                failure=told_.error,
                said="" if told_.error else f"{(told_.seconds or 0) * 1000:.1f} ms",
                seconds=told_.seconds or 0.0,
            )


def _is_for_sockets(service: ServiceStatus) -> bool:
    return service.frontend.endswith("/TCP") and not service.source_ranges


def _spot(frontend: str) -> str:
    return frontend.rpartition("/")[0]


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
