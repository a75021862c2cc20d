"""``meshctl status``: how every agent sees every remote cluster, and whether all is well."""

import time
from collections.abc import Iterator, Mapping
from typing import Annotated

import msgspec
import typer
from rich.markup import escape
from rich.table import Table

from clustermesh.meshctl import api
from clustermesh.meshctl.context import MeshOption, open_mesh
from clustermesh.meshctl.errors import Exit, MeshctlError
from clustermesh.meshctl.meshfile import Mesh, full_name
from clustermesh.meshctl.output import (
    Format,
    Output,
    Progress,
    console,
    duration,
    show_json,
    table,
)
from clustermesh.status import (
    AgentStatus,
    ApiserverStatus,
    CertificateStatus,
    RemoteStatus,
    SyncedKinds,
)
from clustermesh.trust import expiry

POLL = 0.2
WAIT = 60.0


class MeshStatus(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """Everything asked for; None where nobody answers. ``problems`` are sentences."""

    ready: bool
    apiservers: dict[str, ApiserverStatus | None]
    agents: dict[str, AgentStatus | None]
    problems: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    """What is well now and will not be: certificates that end within 30 days."""


def status(
    mesh: MeshOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until all is ready.")] = False,  # noqa: FBT002  # typer makes it a flag
    timeout: Annotated[float, typer.Option(help="Seconds that --wait waits at most.")] = WAIT,
    output: Output = Format.TABLE,
) -> None:
    """Show apiservers, agents and what each agent has of each remote cluster.

    Ends with exit code 3 when something is not ready.
    """
    opened = open_mesh(mesh)
    now = gather(opened)
    if wait and not now.ready:
        now = _until_ready(opened, timeout)
    if output is Format.JSON:
        show_json(now)
    else:
        for part in render(now, time.time()):
            console().print(part)
    if not now.ready:
        raise MeshctlError(
            f"not ready: {now.problems[0]}"
            + (f" (and {len(now.problems) - 1} more)" if len(now.problems) > 1 else ""),
            Exit.NOT_READY,
        )


def gather(mesh: Mesh) -> MeshStatus:
    """Ask everybody once."""
    apiservers = {
        cluster.name: _ask(cluster.apiserver, ApiserverStatus)
        for cluster in mesh.clusters
        if cluster.apiserver
    }
    agents = {
        full_name(cluster, node): _ask(node.agent, AgentStatus) for cluster, node in mesh.nodes()
    }
    found = problems(apiservers, agents)
    return MeshStatus(
        ready=not found,
        apiservers=apiservers,
        agents=agents,
        problems=tuple(found),
        warnings=tuple(_expiring(apiservers, agents, time.time())),
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


def render(now: MeshStatus, clock: float) -> Iterator[Table | str]:
    """Tables for the terminal; ``clock`` is the time in Unix seconds."""
    yield _apiserver_table(now, clock)
    yield ""
    yield _agent_table(now, clock)
    yield ""
    yield _remote_table(now, clock)
    yield from _certificate_table(now, clock)
    for title, lines in (
        ("Problems", now.problems),
        ("Warnings", now.warnings),
        ("Refused", _refused(now)),
    ):
        if lines:
            yield f"\n[bold]{title}[/bold]"
            yield from (f"  {escape(line)}" for line in lines)


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
    return [f"{name}: {one.what}: {one.reason}" for name, many in refused for one in many]


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
            days = _bad(str(left)) if left < expiry.WARN_DAYS else str(left)
            made.add_row(place, escape(one.what), escape(one.subject), one.fingerprint[:16], days)
    if made.row_count:
        yield ""
        yield made


def _apiserver_table(now: MeshStatus, clock: float) -> Table:
    made = table("CLUSTER", "ID", "APISERVER", "ETCD", "KEYS", "PENDING", "HEARTBEAT", "REFUSED")
    for name, found in now.apiservers.items():
        if found is None:
            made.add_row(name, "?", _bad("no answer"), *("?" * 5))
            continue
        made.add_row(
            name,
            str(found.cluster_id),
            _ready(found.ready),
            escape(found.etcd),
            str(sum(found.keys.values())),
            str(found.pending),
            _ago(found.heartbeat, clock),
            str(len(found.refusals)),
        )
    return made


def _agent_table(now: MeshStatus, clock: float) -> Table:
    made = table(
        "NODE", "AGENT", "UP", "SERVICES", "GLOBAL", "MAP ENTRIES", "MAP WRITES", "REFUSED"
    )
    for name, found in now.agents.items():
        if found is None:
            made.add_row(name, _bad("no answer"), *("?" * 6))
            continue
        made.add_row(
            name,
            _ready(found.ready),
            duration(clock - found.started),
            str(found.num_services),
            str(found.num_global_services),
            str(sum(count.entries for count in found.maps.values())),
            str(found.map_writes),
            str(len(found.refusals)),
        )
    return made


def _remote_table(now: MeshStatus, clock: float) -> Table:
    made = table(
        *("NODE", "REMOTE", "STATE", "SYNCED", "NODES", "ENDPOINTS", "IDENTITIES", "SERVICES"),
        *("FAILURES", "LAST FAILURE", "HEARTBEAT", "NEWEST FACT"),
    )
    for name, found in now.agents.items():
        for remote in (found.own, *found.remotes) if found else ():
            own = found is not None and remote is found.own
            made.add_row(
                name,
                f"{remote.name} (own)" if own else remote.name,
                _state(remote),
                _synced(remote.synced),
                str(remote.num_nodes),
                str(remote.num_endpoints),
                str(remote.num_identities),
                str(remote.num_shared_services),
                str(remote.num_failures),
                _failure(remote, clock),
                duration(remote.heartbeat_age),
                duration(remote.newest_fact_age),
            )
    return made


def _state(remote: RemoteStatus) -> str:
    if remote.ready:
        return _ready(ready=True)
    if remote.held:
        return _bad("held")
    return _bad("connected" if remote.connected else "not connected")


def _synced(kinds: SyncedKinds) -> str:
    """``all``, or what is missing."""
    told = {name: getattr(kinds, name) for name in kinds.__struct_fields__}
    missing = [name.replace("_", "-") for name, done in told.items() if done is False]
    return "all" if not missing else f"not {', '.join(missing)}"


def _failure(remote: RemoteStatus, clock: float) -> str:
    if not remote.last_failure:
        return "never"
    ago = f"{_ago(remote.last_failure, clock)} ago"
    return f"{ago}: {escape(remote.last_failure_reason)}" if remote.last_failure_reason else ago


def _ago(moment: float, clock: float) -> str:
    return duration(clock - moment) if moment else "never"


def _ready(ready: bool) -> str:  # noqa: FBT001  # a word for a boolean is what this is
    return "[green]ready[/green]" if ready else _bad("not ready")


def _bad(text: str) -> str:
    return f"[red]{text}[/red]"
