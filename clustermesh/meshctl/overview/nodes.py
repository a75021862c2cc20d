"""Node by node: each agent, and what it has of each cluster. [pure]"""

from collections.abc import Iterator, Mapping

from rich.markup import escape
from rich.table import Table

from clustermesh.meshctl.output import duration, table
from clustermesh.meshctl.overview.text import bad
from clustermesh.meshctl.overview.wrong import steady
from clustermesh.status import AgentStatus, RemoteStatus, SyncedKinds

Agents = Mapping[str, AgentStatus | None]


def agents(found: Agents, clock: float) -> Table:
    """A line per node; ``clock`` is the time in Unix seconds."""
    made = table(
        "NODE", "AGENT", "UP", "SERVICES", "GLOBAL", "MAP ENTRIES", "MAP WRITES", "REFUSED"
    )
    for name, agent in found.items():
        if agent is None:
            made.add_row(name, bad("no answer"), *("?" * 6))
            continue
        made.add_row(
            name,
            "ready" if agent.ready else bad("not ready"),
            duration(clock - agent.started),
            str(agent.num_services),
            str(agent.num_global_services),
            str(sum(count.entries for count in agent.maps.values())),
            str(agent.map_writes),
            str(len(agent.refusals)),
        )
    return made


def remotes(found: Agents, clock: float) -> Table:
    """A line per node and cluster."""
    made = table(
        *("NODE", "HAS OF", "STATE", "SYNCED", "NODES", "ENDPTS", "IDENT", "SVCS"),
        *("FAILURES", "HEARTBEAT", "NEWEST FACT"),
    )
    for name, agent in found.items():
        for remote in (agent.own, *agent.remotes) if agent else ():
            made.add_row(
                name,
                f"{remote.name} (own)" if agent and remote is agent.own else remote.name,
                _state(remote),
                _synced(remote.synced),
                str(remote.num_nodes),
                str(remote.num_endpoints),
                str(remote.num_identities),
                str(remote.num_shared_services),
                _failures(remote, clock),
                duration(remote.heartbeat_age),
                duration(remote.newest_fact_age),
            )
    return made


def failures(found: Agents, clock: float) -> Iterator[str]:
    """The last failure of each node with each cluster; the same words are told once."""
    told: dict[tuple[str, str], list[str]] = {}
    for name, agent in found.items():
        for remote in (agent.own, *agent.remotes) if agent else ():
            if remote.last_failure and remote.last_failure_reason:
                ago = f"{duration(clock - remote.last_failure)} ago"
                key = (remote.name, steady(remote.last_failure_reason))
                told.setdefault(key, []).append(f"{name} ({ago})")
    for (remote_name, reason), nodes in told.items():
        yield f"  {escape(f'{remote_name}: {reason}')}\n    on {escape(', '.join(nodes))}"


def _failures(remote: RemoteStatus, clock: float) -> str:
    if not remote.last_failure:
        return "never"
    return f"{remote.num_failures}, {duration(clock - remote.last_failure)} ago"


def _state(remote: RemoteStatus) -> str:
    if remote.ready:
        return "ready"
    if remote.held:
        return bad("held")
    return bad("connected" if remote.connected else "not connected")


def _synced(kinds: SyncedKinds) -> str:
    """``all``, or what is missing."""
    told = {name: getattr(kinds, name) for name in kinds.__struct_fields__}
    missing = [name.replace("_", "-") for name, done in told.items() if done is False]
    return "all" if not missing else bad(f"not {', '.join(missing)}")
