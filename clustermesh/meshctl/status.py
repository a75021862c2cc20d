"""``meshctl status``: what each cluster has of each other, what is wrong, and what to do next."""

import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import msgspec
import typer
from rich.markup import escape
from rich.table import Table

from clustermesh.meshctl import api, completing
from clustermesh.meshctl.context import MeshOption, open_mesh
from clustermesh.meshctl.errors import Exit, MeshctlError
from clustermesh.meshctl.harmless import harmless
from clustermesh.meshctl.output import (
    Format,
    Output,
    Progress,
    console,
    say,
    show_json,
    table,
)
from clustermesh.meshctl.overview import nodes as by_node
from clustermesh.meshctl.overview import pairs, text, wrong
from clustermesh.meshctl.overview.pairs import PairStatus
from clustermesh.meshctl.overview.wrong import Wrong
from clustermesh.meshctl.quantities import SECONDS, seconds
from clustermesh.meshfile import Mesh, full_name
from clustermesh.status import (
    AgentStatus,
    ApiserverStatus,
    CertificateStatus,
)
from clustermesh.trust import expiry

POLL = 0.2
FEW = 12
"""Nodes up to which each is shown without being asked for."""
WAIT = 60.0


class MeshStatus(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """Everything asked for; None where nobody answers. ``problems`` are sentences."""

    ready: bool
    apiservers: dict[str, ApiserverStatus | None]
    agents: dict[str, AgentStatus | None]
    problems: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    """What is well now and will not be: certificates that end within 30 days."""
    pairs: tuple[PairStatus, ...] = ()
    """What each cluster has of each other, over all its nodes."""
    wrong: tuple[Wrong, ...] = ()
    """Problems and more, each told once and with what to do next."""


def status(
    mesh: MeshOption = None,
    cluster: Annotated[str, completing.cluster_option("Only this cluster's view.")] = "",
    output: Output = Format.TABLE,
    *,
    nodes: Annotated[
        bool | None,
        typer.Option(help="Node by node, too; by default in a mesh of few nodes."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until all is ready.")] = False,
    timeout: Annotated[
        float,
        typer.Option(parser=seconds, metavar=SECONDS, help="How long --wait waits at most."),
    ] = WAIT,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Again and again, until Ctrl-C.")
    ] = False,
    interval: Annotated[
        float, typer.Option(parser=seconds, metavar=SECONDS, help="Between two, with --watch.")
    ] = 2.0,
) -> None:
    """Show the mesh, what is wrong with it, and what to do.

    Clusters, what each has of each other, and problems with the next command. Ends with exit
    code 3 when something is not ready.
    """
    opened = chosen(open_mesh(mesh), cluster)
    if nodes is None:
        nodes = len(opened.nodes()) <= FEW
    while watch:
        _show(gather(opened), output, nodes=nodes, again=True)
        time.sleep(max(interval, POLL))
    now = gather(opened)
    if wait and not now.ready:
        now = _until_ready(opened, timeout)
    _show(now, output, nodes=nodes)
    if not now.ready:
        raise MeshctlError(
            f"not ready: {now.problems[0]}"
            + (f" (and {len(now.problems) - 1} more)" if len(now.problems) > 1 else ""),
            Exit.NOT_READY,
        )


def chosen(mesh: Mesh, cluster: str) -> Mesh:
    """The mesh as one cluster has it; all of it for an empty name."""
    if not cluster:
        return mesh
    return msgspec.structs.replace(mesh, clusters=(mesh.cluster(cluster),))


def _show(now: MeshStatus, output: Format, *, nodes: bool, again: bool = False) -> None:
    """``again``: in place of what was shown before on a terminal, a line of JSON each time."""
    if output is Format.JSON:
        if again:
            say(msgspec.json.encode(now).decode())
            sys.stdout.flush()
        else:
            show_json(now)
        return
    page = console()
    if again and page.is_terminal:
        page.clear()
    for part in render(now, time.time(), nodes=nodes):
        if isinstance(part, str):
            page.print(harmless(part), soft_wrap=True)  # a pipe gets whole sentences
        else:
            page.print(part)
    if again:
        page.print(time.strftime("\n%H:%M:%S, Ctrl-C ends"))
        sys.stdout.flush()


def gather(mesh: Mesh) -> MeshStatus:
    """Ask everybody once, many at a time: those who do not answer cost the time of one."""
    with ThreadPoolExecutor(max_workers=api.AT_ONCE) as pool:
        apiservers = {
            cluster.name: pool.submit(_ask, cluster.apiserver, ApiserverStatus)
            for cluster in mesh.clusters
            if cluster.apiserver
        }
        agents = {
            full_name(cluster, node): pool.submit(_ask, node.agent, AgentStatus)
            for cluster, node in mesh.nodes()
        }
        return told(
            {name: answer.result() for name, answer in apiservers.items()},
            {name: answer.result() for name, answer in agents.items()},
            time.time(),
        )


def told(
    apiservers: Mapping[str, ApiserverStatus | None],
    agents: Mapping[str, AgentStatus | None],
    clock: float,
) -> MeshStatus:
    """What these answers say together."""
    found = problems(apiservers, agents)
    between = pairs.of(agents)
    return MeshStatus(
        ready=not found,
        apiservers=dict(apiservers),
        agents=dict(agents),
        problems=tuple(found),
        warnings=tuple(_expiring(apiservers, agents, clock)),
        pairs=between,
        wrong=wrong.find(apiservers, agents, between),
    )


def problems(
    apiservers: Mapping[str, ApiserverStatus | None], agents: Mapping[str, AgentStatus | None]
) -> list[str]:
    """What keeps the mesh from being ready, one sentence each."""
    found: list[str] = []
    for name, apiserver in apiservers.items():
        found += _apiserver_problems(name, apiserver)
    for name, agent in agents.items():
        found += _agent_problems(name, agent)
    return found


def render(now: MeshStatus, clock: float, *, nodes: bool = True) -> Iterator[Table | str]:
    """The page for the terminal; ``clock`` is the time in Unix seconds."""
    yield text.clusters(now.apiservers, now.agents, clock)
    yield ""
    yield from text.grid(now.pairs)
    yield from text.matrix(now.pairs)
    yield from text.wrong(now.wrong)
    for title, lines in (("Certificates", now.warnings), ("Refused", _refused(now))):
        if lines:
            yield f"\n[bold]{title}[/bold]"
            yield from (f"  {escape(line)}" for line in lines)
    if nodes:
        yield from _by_node(now, clock)
    elif now.agents:
        yield "\n(by node: meshctl status --nodes)"


def _by_node(now: MeshStatus, clock: float) -> Iterator[Table | str]:
    yield ""
    for name, found in now.apiservers.items():
        if found:
            yield f"{name}: {escape(found.etcd)}; {found.pending} writes pending"
    yield ""
    yield by_node.agents(now.agents, clock)
    yield ""
    yield by_node.remotes(now.agents, clock)
    if failures := list(by_node.failures(now.agents, clock)):
        yield "\n[bold]Last failures[/bold]"
        yield from failures
    yield from _certificate_table(now, clock)


def _until_ready(mesh: Mesh, timeout: float) -> MeshStatus:
    deadline = time.monotonic() + timeout
    with Progress() as progress:
        while True:
            now = gather(mesh)
            if now.ready or time.monotonic() >= deadline:
                return now
            progress(f"not ready: {now.problems[0]}")
            time.sleep(POLL)


def _ask(url: str, kind: type[api.T]) -> api.T | None:
    try:
        return api.fetch(url, "/v1/status", kind)
    except api.NoAnswer:
        return None


def _apiserver_problems(name: str, found: ApiserverStatus | None) -> Iterator[str]:
    if found is None:
        yield f"{name}: its apiserver does not answer"
        return
    if not found.ready:
        yield f"{name}: its apiserver is not ready"
    yield from (f"{name}: apiserver: {trouble}" for trouble in found.trouble)


def _agent_problems(name: str, found: AgentStatus | None) -> Iterator[str]:
    if found is None:
        yield f"{name}: its agent does not answer"
        return
    if not found.ready:
        yield f"{name}: its agent is not ready"
    yield from (f"{name}: {trouble}" for trouble in found.trouble)
    for remote in (found.own, *found.remotes):
        if not remote.ready:
            why = remote.held or remote.last_failure_reason or remote.status or "not synced yet"
            yield f"{name}: {remote.name} is not ready: {why}"


def _refused(now: MeshStatus) -> list[str]:
    """Objects that were refused: named, but no reason not to be ready."""
    refused = [(name, found.refusals) for name, found in now.apiservers.items() if found]
    refused += [(name, found.refusals) for name, found in now.agents.items() if found]
    where: dict[str, list[str]] = {}
    for name, many in refused:
        for one in many:
            where.setdefault(f"{one.what}: {one.reason}", []).append(name)
    return [f"{', '.join(names)}: {said}" for said, names in where.items()]


def _expiring(
    apiservers: Mapping[str, ApiserverStatus | None],
    agents: Mapping[str, AgentStatus | None],
    clock: float,
) -> Iterator[str]:
    """A sentence per certificate, however many use it; the first who does is named."""
    for place, certificates in _certificates({**apiservers, **agents}):
        yield from (f"{place}: {line}" for line in expiry.warnings(certificates, clock))


def _certificates(
    everybody: Mapping[str, ApiserverStatus | AgentStatus | None],
) -> Iterator[tuple[str, list[CertificateStatus]]]:
    """Who uses which certificates; each is told once for a use in a cluster."""
    told: set[tuple[str, str, str]] = set()
    for place, found in everybody.items():
        fresh = []
        for one in found.certificates if found else ():
            key = (place.split("/")[0], one.what, one.fingerprint)
            if key not in told:
                told.add(key)
                fresh.append(one)
        if fresh:
            yield place, fresh


def _certificate_table(now: MeshStatus, clock: float) -> Iterator[Table | str]:
    made = table("WHERE", "CERTIFICATE OF", "SUBJECT", "FINGERPRINT", "DAYS LEFT")
    for place, certificates in _certificates({**now.apiservers, **now.agents}):
        for one in certificates:
            left = expiry.days_left(one, clock)
            days = text.bad(str(left)) if left < expiry.WARN_DAYS else str(left)
            made.add_row(place, escape(one.what), escape(one.subject), one.fingerprint[:16], days)
    if made.row_count:
        yield ""
        yield made
