"""What is wrong in a mesh, each once, with what to type next. [pure]"""

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from clustermesh.meshctl.overview.pairs import PairStatus
from clustermesh.status import AgentStatus, ApiserverStatus, RemoteStatus

LOSS: Final = 0.05
"""Share of lost probes that is worth a word."""
CLOCKS: Final = 1.0
"""Seconds that clocks may differ before it is worth a word."""
PRESSURE: Final = 0.9
"""Share of a map's room from which on it is nearly full."""
_PREFIX = re.compile(r"^(?:cilium|clustermesh)/\S*: ")
"""Which of many watches was the last to fail."""
_CHANGING = re.compile(r"; (?:trying|connecting|listing) again in [\d.e-]+ ?s\b")


class Level(StrEnum):
    """PROBLEM: the mesh is not ready. WARNING: it is, and something ought to be done."""

    PROBLEM = "problem"
    WARNING = "warning"


class Wrong(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """One thing that is wrong in a cluster, perhaps on many of its nodes; ``next``: what to do."""

    level: Level
    cluster: str
    said: str
    next: str
    nodes: tuple[str, ...] = ()
    of: int = 0
    """Nodes of the cluster."""

    def where(self) -> str:
        """``cluster-a``, ``cluster-a/node-1`` or ``cluster-a (2 of 2 nodes)``."""
        if not self.nodes:
            return self.cluster
        if len(self.nodes) == 1:
            return self.nodes[0]
        return f"{self.cluster} ({len(self.nodes)} of {self.of} nodes)"


Found = tuple[str, str, str, Level]
"""Node (``cluster/node``), sentence, what to do, and how bad it is."""


def find(
    apiservers: Mapping[str, ApiserverStatus | None],
    agents: Mapping[str, AgentStatus | None],
    pairs: Sequence[PairStatus],
) -> tuple[Wrong, ...]:
    """Problems first; what several nodes of a cluster say in the same words is told once."""
    found = [one for name, it in apiservers.items() for one in _apiserver(name, it)]
    found += _folded(agents)
    found += _pairs(pairs)
    found += _versions(apiservers, agents)
    return tuple(sorted(found, key=lambda one: one.level is not Level.PROBLEM))


def _apiserver(name: str, found: ApiserverStatus | None) -> Iterator[Wrong]:
    log = f"read the log of {name}'s clustermesh-apiserver; in a lab: meshctl lab status"

    def problem(said: str) -> Wrong:
        return Wrong(level=Level.PROBLEM, cluster=name, said=said, next=log)

    if found is None:
        yield problem("its apiserver does not answer")
    elif found.trouble:
        told = [one for one in found.trouble if one.startswith("etcd:")] or found.trouble
        yield from (problem(f"apiserver: {steady(one)}") for one in told)  # the rest follows
    elif not found.ready:
        yield problem("its apiserver is not ready")


def _folded(agents: Mapping[str, AgentStatus | None]) -> Iterator[Wrong]:
    told: dict[tuple[str, str], list[Found]] = {}
    nodes: dict[str, int] = {}
    for name, agent in agents.items():
        cluster = name.partition("/")[0]
        nodes[cluster] = nodes.get(cluster, 0) + 1
        for one in _agent(name, agent):
            told.setdefault((cluster, one[1]), []).append(one)
    for (cluster, said), them in told.items():
        yield Wrong(
            level=them[0][3],
            cluster=cluster,
            said=said,
            next=them[0][2],
            nodes=tuple(dict.fromkeys(one[0] for one in them)),
            of=nodes[cluster],
        )


def _agent(name: str, found: AgentStatus | None) -> Iterator[Found]:
    if found is None:
        log = (
            "read the log of clustermesh-agent there; where it listens on 127.0.0.1 (the chart's"
            f" agent.listen) ask on its node; in a lab: meshctl lab restart {name}/agent"
        )
        yield name, "its agent does not answer", log, Level.PROBLEM
        return
    unready = [it for it in (found.own, *found.remotes) if not it.ready]
    yield from (_remote(name, it, own=it is found.own) for it in unready)
    # What stands in the way of a cluster has been told with it.
    prefixes = tuple([f"cluster {it.name}:" for it in unready])
    if not found.own.ready:
        prefixes = (*prefixes, "own cluster:")
    for said in found.trouble:
        if not said.startswith(prefixes):
            yield name, steady(said), _way_out(name, said), Level.PROBLEM
    if not found.ready and not unready and not found.trouble:
        yield name, "its agent is not ready", f"meshctl troubleshoot --node {name}", Level.PROBLEM
    yield from _room(name, found)


def _remote(name: str, remote: RemoteStatus, *, own: bool) -> Found:
    why = remote.held or remote.last_failure_reason or remote.status or "not synced yet"
    said = f"{remote.name} is not ready: {steady(why)}"
    if own:
        return name, said, f"see whether the etcd of {remote.name} runs", Level.PROBLEM
    command = f"meshctl troubleshoot --node {name} --cluster {remote.name}"
    return name, said, command, Level.PROBLEM


def _room(name: str, found: AgentStatus) -> Iterator[Found]:
    for what, count in found.maps.items():
        if count.max_entries and count.entries > PRESSURE * count.max_entries:
            said = f"map {what} is nearly full ({count.entries} of {count.max_entries} entries)"
            yield name, said, "give the agents a larger --map-entries", Level.WARNING


def _way_out(name: str, said: str) -> str:
    own, _, rest = said.partition(": ")
    peer = own.removeprefix("cluster ")
    if "answers through the mesh" in rest:
        return f"meshctl plan {name.partition('/')[0]} {peer}"
    if "differ" in said:
        return f"meshctl audit --node {name}"
    if own.startswith("cluster "):
        return f"meshctl troubleshoot --node {name} --cluster {peer}"
    return f"read the log of clustermesh-agent on {name}"


def _pairs(pairs: Sequence[PairStatus]) -> Iterator[Wrong]:
    known = {(pair.cluster, pair.remote): pair for pair in pairs}
    for pair in pairs:
        there = known.get((pair.remote, pair.remote))
        follows = (pair.remote, pair.cluster) in known
        one_way = not follows and there is not None and there.silent < there.nodes
        yield from (
            Wrong(level=Level.WARNING, cluster=pair.cluster, said=said, next=command)
            for said, command in _pair(pair, one_way=one_way)
        )


def _pair(pair: PairStatus, *, one_way: bool) -> Iterator[tuple[str, str]]:
    """``one_way``: the remote's agents answer, and know nothing of this cluster."""
    if one_way:
        said = f"{pair.remote} does not follow it: no packet comes back from there"
        yield said, f"meshctl connect {pair.cluster} {pair.remote}"
    elif pair.loss is not None and LOSS < pair.loss < 1:
        said = f"{pair.loss:.0%} of the probes to nodes of {pair.remote} get no answer"
        yield said, f"meshctl plan {pair.cluster} {pair.remote}"
    behind = pair.clock_behind
    if behind is not None and behind > CLOCKS:  # told once, by the one who is ahead
        said = f"the clocks of {pair.remote} are {behind:.1f} s behind; propagation is told without"
        yield said, f"let the nodes of {pair.cluster} and {pair.remote} keep time (chrony, NTP)"


def _versions(
    apiservers: Mapping[str, ApiserverStatus | None], agents: Mapping[str, AgentStatus | None]
) -> Iterator[Wrong]:
    by_cluster = versions(apiservers, agents)
    everywhere = sorted({one for them in by_cluster.values() for one in them})
    if len(everywhere) > 1:
        told = "; ".join(f"{name} {', '.join(them)}" for name, them in by_cluster.items())
        yield Wrong(
            level=Level.WARNING,
            cluster="mesh",
            said=f"several releases: {told}",
            next="upgrade the older ones; neighbouring releases work together",
        )


def versions(
    apiservers: Mapping[str, ApiserverStatus | None], agents: Mapping[str, AgentStatus | None]
) -> dict[str, list[str]]:
    """The releases that run in each cluster."""
    found: dict[str, set[str]] = {name.partition("/")[0]: set() for name in (*apiservers, *agents)}
    for name, it in (*apiservers.items(), *agents.items()):
        if it is not None:
            found[name.partition("/")[0]].add(it.version)
    return {name: sorted(them) for name, them in found.items()}


def steady(said: str) -> str:
    """A sentence without what is different on every node and at every moment."""
    return _CHANGING.sub("", _PREFIX.sub("", said))
