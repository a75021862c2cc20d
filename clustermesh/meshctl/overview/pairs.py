"""Cluster by cluster: what all nodes of one have of another, in one line. [pure]"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median

import msgspec

from clustermesh.propagation import clocks_apart
from clustermesh.status import AgentStatus, Propagation, RemoteStatus


class PairStatus(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """What the nodes of ``cluster`` have of ``remote``; of the own cluster when both are one.

    ``nodes`` are all of them, ``silent`` those whose agent does not answer; the others are counted
    in ``connected``, ``synced`` and ``ready``. Times are in seconds, None where nobody knows:
    ``rtt`` is the median of the nodes, ``loss``, ``p99`` and ``newest_fact_age`` of the worst,
    ``p50`` the median. ``clock_behind``: by how much the remote's clocks are behind, by the ways
    there and back; it is taken out of ``p50`` and ``p99``.
    """

    cluster: str
    remote: str
    nodes: int
    silent: int = 0
    connected: int = 0
    synced: int = 0
    ready: int = 0
    rtt: float | None = None
    loss: float | None = None
    newest_fact_age: float | None = None
    p50: float | None = None
    p99: float | None = None
    samples: int = 0
    clock_behind: float | None = None

    @property
    def own(self) -> bool:
        """Whether it is about the cluster itself."""
        return self.cluster == self.remote

    @property
    def well(self) -> bool:
        """Whether every node has all of it."""
        return self.ready == self.nodes


Views = Mapping[tuple[str, str], Sequence[RemoteStatus]]


def of(agents: Mapping[str, AgentStatus | None]) -> tuple[PairStatus, ...]:
    """Every pair that some node knows of; ``agents`` by ``cluster/node``."""
    views = _views(agents)
    nodes: dict[str, int] = {}
    silent: dict[str, int] = {}
    for name, agent in agents.items():
        cluster = name.partition("/")[0]
        nodes[cluster] = nodes.get(cluster, 0) + 1
        silent[cluster] = silent.get(cluster, 0) + (agent is None)
    return tuple(
        _pair(views, *key, nodes=nodes[key[0]], silent=silent[key[0]]) for key in sorted(views)
    )


def _views(agents: Mapping[str, AgentStatus | None]) -> Views:
    views: dict[tuple[str, str], list[RemoteStatus]] = {}
    for name, agent in agents.items():
        for remote in (agent.own, *agent.remotes) if agent else ():
            views.setdefault((name.partition("/")[0], remote.name), []).append(remote)
    return views


def _pair(views: Views, cluster: str, remote: str, *, nodes: int, silent: int) -> PairStatus:
    seen = views[cluster, remote]
    behind = _behind(views, cluster, remote)
    told = [it.propagation for it in seen if it.propagation and it.propagation.p50 is not None]
    return PairStatus(
        cluster=cluster,
        remote=remote,
        nodes=nodes,
        silent=silent,
        connected=sum(it.connected for it in seen),
        synced=sum(is_synced(it) for it in seen),
        ready=sum(it.ready for it in seen),
        rtt=_of(median, (it.rtt for it in seen)),
        loss=_of(max, (it.loss for it in seen)),
        newest_fact_age=_of(max, (it.newest_fact_age for it in seen)),
        p50=_of(median, (_without(it, it.p50, behind) for it in told)),
        p99=_of(max, (_without(it, it.p99, behind) for it in told)),
        samples=sum(it.samples for it in told),
        clock_behind=behind,
    )


def is_synced(remote: RemoteStatus) -> bool:
    """Whether every kind that is followed was read in full."""
    return all(getattr(remote.synced, it) is not False for it in remote.synced.__struct_fields__)


def _behind(views: Views, cluster: str, remote: str) -> float | None:
    """How far the remote's clocks are behind; None when one way is not known."""
    if cluster == remote:
        return None
    ways = [
        [it.propagation for it in views.get(pair, ())]
        for pair in ((cluster, remote), (remote, cluster))
    ]
    there, back = ways
    return _of(median, (clocks_apart(a, b) for a in there for b in back))


def _without(told: Propagation, seconds: float | None, behind: float | None) -> float | None:
    """A figure without the difference of the clocks, and never less than nothing."""
    if seconds is None or behind is None:
        return seconds
    return max(0.0, seconds - told.ahead - behind)


def _of(what: Callable[[Sequence[float]], float], values: Iterator[float | None]) -> float | None:
    known = [it for it in values if it is not None]
    return what(known) if known else None
