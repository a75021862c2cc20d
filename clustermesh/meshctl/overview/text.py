"""The mesh on a page of 120 columns: clusters, who has what of whom, what is wrong. [pure]"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from rich.markup import escape
from rich.table import Table

from clustermesh.meshctl.output import duration, table
from clustermesh.meshctl.overview.pairs import PairStatus
from clustermesh.meshctl.overview.wrong import Level, Wrong, versions
from clustermesh.status import AgentStatus, ApiserverStatus
from clustermesh.trust import expiry

GRID: Final = 10
"""Clusters up to which who has whom is drawn as a square."""
MANY: Final = 30
"""Pairs from which on only those are listed that are not well."""

Apiservers = Mapping[str, ApiserverStatus | None]
Agents = Mapping[str, AgentStatus | None]


def clusters(apiservers: Apiservers, agents: Agents, clock: float) -> Table:
    """A line per cluster; ``clock`` is the time in Unix seconds."""
    made = table(
        *("CLUSTER", "ID", "VERSION", "APISERVER", "ETCD", "AGENTS", "KEYS", "HEARTBEAT"),
        *("CERTIFICATES", "REFUSED"),
    )
    names = dict.fromkeys([*apiservers, *(name.partition("/")[0] for name in agents)])
    releases = versions(apiservers, agents)
    for name in names:
        found = apiservers.get(name)
        mine = [it for node, it in agents.items() if node.partition("/")[0] == name]
        ready = sum(it is not None and it.ready for it in mine)
        number = found.cluster_id if found else next((it.cluster_id for it in mine if it), 0)
        made.add_row(
            name,
            str(number or "?"),
            ", ".join(releases.get(name, [])) or "?",
            _apiserver(found, known=name in apiservers),
            _etcd(found),
            _share(ready, len(mine)),
            str(sum(found.keys.values())) if found else "?",
            _ago(found.heartbeat, clock) if found else "?",
            _certificates([it for it in (found, *mine) if it is not None], clock),
            str(sum(len(it.refusals) for it in (found, *mine) if it is not None)),
        )
    return made


def grid(pairs: Sequence[PairStatus]) -> Iterator[Table | str]:
    """Ready nodes of each row's cluster, for each column's; nothing in a large mesh."""
    names = sorted({pair.cluster for pair in pairs} | {pair.remote for pair in pairs})
    if not 1 < len(names) <= GRID:
        return
    found = {(pair.cluster, pair.remote): pair for pair in pairs}
    made = table("NODES READY WITH", *names)
    for row in names:
        made.add_row(row, *(_cell(found.get((row, column))) for column in names))
    yield made
    yield ""


def matrix(pairs: Sequence[PairStatus]) -> Iterator[Table | str]:
    """A line for what each cluster has of each other, the own ones' last."""
    shown = [pair for pair in pairs if len(pairs) <= MANY or not pair.well]
    made = table(
        *("CLUSTER", "HAS OF", "CONNECTED", "SYNCED", "RTT", "LOSS", "NEWEST FACT"),
        *("PROPAGATION p50 / p99", "PROBES"),
    )
    for pair in sorted(shown, key=lambda it: it.own):
        made.add_row(
            pair.cluster,
            "itself" if pair.own else pair.remote,
            _share(pair.connected, pair.nodes),
            _share(pair.synced, pair.nodes),
            seconds(pair.rtt),
            "-" if pair.loss is None else f"{pair.loss:.0%}",
            duration(pair.newest_fact_age),
            f"{seconds(pair.p50)} / {seconds(pair.p99)}" if pair.samples else "-",
            str(pair.samples),
        )
    if made.row_count:
        yield made
    if len(shown) < len(pairs):
        yield f"{len(pairs) - len(shown)} more pairs are well (-o json has them all)"


def wrong(found: Sequence[Wrong]) -> Iterator[str]:
    """What is wrong, and under each what to do next."""
    for level, title in ((Level.PROBLEM, "What is wrong"), (Level.WARNING, "Warnings")):
        those = [one for one in found if one.level is level]
        if those:
            yield f"\n[bold]{title}[/bold]"
        for one in those:
            yield f"  {escape(one.where())}: {escape(one.said)}"
            yield f"    next: {escape(one.next)}"


def seconds(value: float | None) -> str:
    """``0.4 ms``, ``12 ms``, ``1.3 s``; ``-`` for None."""
    if value is None:
        return "-"
    if value < 0.01:
        return f"{value * 1000:.1f} ms"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def _apiserver(found: ApiserverStatus | None, *, known: bool) -> str:
    if found is None:
        return bad("no answer") if known else "-"
    return "ready" if found.ready else bad("not ready")


def _etcd(found: ApiserverStatus | None) -> str:
    if found is None:
        return "?"
    return bad("not connected") if "not connected" in found.etcd else "connected"


def _certificates(found: Sequence[ApiserverStatus | AgentStatus], clock: float) -> str:
    """How long the first of them holds."""
    left = [expiry.days_left(one, clock) for it in found for one in it.certificates]
    if not left:
        return "-"
    return bad(f"{min(left)} days") if min(left) < expiry.WARN_DAYS else f"{min(left)} days"


def _cell(pair: PairStatus | None) -> str:
    if pair is None:
        return "-"
    return _share(pair.ready, pair.nodes)


def _share(part: int, whole: int) -> str:
    said = f"{part} of {whole}"
    return said if part == whole else bad(said)


def _ago(moment: float, clock: float) -> str:
    return duration(clock - moment) if moment else "never"


def bad(text: str) -> str:
    """In red."""
    return f"[red]{text}[/red]"
