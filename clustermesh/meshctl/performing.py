"""Make or unmake peerings: change, wait for the nodes, prove it with packets, or take it back."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec

from clustermesh.errors import MeshError
from clustermesh.findings import Finding
from clustermesh.meshctl import api, troubleshoot, watch
from clustermesh.meshctl.output import complain
from clustermesh.meshctl.peering import Change, Mode, Peering, exists, making, peerings, unmaking
from clustermesh.meshfile import Mesh
from clustermesh.pki import CertificateError

LEAST = 10.0
"""Seconds that probes get, however long the nodes took to sync."""

LEFT = "NOT undone"

Report = Callable[[str], None]
Pair = frozenset[str]


class Task(NamedTuple):
    """What to change for a peering, and how to see on a node that it has taken effect."""

    changes: Callable[[Peering], Iterator[Change]]
    judge: watch.Judge
    done: str
    waiting: str
    proof: watch.Judge | None = None
    """Asked when the nodes are done; None: nothing more is to be proved, nor taken back."""


CONNECT = Task(making, watch.synced, "synced", "waiting for the nodes to sync", watch.answering)
DISCONNECT = Task(unmaking, watch.drained, "drained", "waiting for the nodes to drain")


class Result(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """What was changed, what each node made of it, and what was taken back because of that."""

    changes: tuple[str, ...]
    nodes: tuple[watch.Outcome, ...]
    probes: tuple[watch.Outcome, ...] = ()
    undone: tuple[str, ...] = ()
    causes: tuple[Finding, ...] = ()

    @property
    def late(self) -> list[watch.Outcome]:
        """What is not as wanted."""
        return [outcome for outcome in (*self.nodes, *self.probes) if not outcome.done]


class Planned(NamedTuple):
    """A change and the two clusters that it is for."""

    pair: Pair
    change: Change


def planned(task: Task, wanted: Sequence[Peering]) -> list[Planned]:
    """Every change; what makes agents do something comes last when connecting, first when parting,
    so that no agent is refused by a peer that does not know it yet, or no more.
    """
    changes = [Planned(peering.pair, it) for peering in wanted for it in task.changes(peering)]
    return sorted(changes, key=lambda each: each.change.order)


def perform(
    task: Task,
    mesh: Mesh,
    clusters: Sequence[str],
    *,
    timeout: float,
    report: Report,
    mode: Mode = Mode.MESH,
    keep: bool = False,
) -> Result:
    """Make the changes, wait, and prove. A pair that was not connected before and does not work is
    parted again, unless ``keep``. Raises ``MeshctlError``, ``CertificateError`` or ``OSError``.
    """
    wanted = peerings(mesh, clusters, mode)
    pairs = {peering.pair for peering in wanted}
    known = pairs if task.proof is None else connected(wanted)
    made = _change(planned(task, wanted), keep=known, report=report)
    if timeout <= 0:
        return Result(changes=_told(made), nodes=())
    report(task.waiting)
    nodes = watch.until(watch.pairs(mesh, wanted), task.judge, timeout=timeout, report=report)
    probes: list[watch.Outcome] = []
    if task.proof is not None:
        ready = [it for it in _mutual(wanted) if not _failed(it.pair, nodes)]
        report("sending probes through the overlay")
        probes = watch.until(
            _reached(watch.pairs(mesh, ready), nodes), task.proof, timeout=LEAST, report=report
        )
    result = Result(changes=_told(made), nodes=tuple(nodes), probes=tuple(probes))
    broken = {it.pair for it in wanted if _failed(it.pair, nodes) or _failed(it.pair, probes)}
    if task.proof is None or keep or not broken - known:
        return result
    causes = tuple(_causes(mesh, result))
    undone = _undo([it for it in made if it.pair in broken - known], report)
    return msgspec.structs.replace(result, undone=undone, causes=causes)


def connected(wanted: Sequence[Peering]) -> set[Pair]:
    """Pairs of which one follows the other already: nothing is ever taken back from them."""
    both = [*wanted, *(Peering(it.source, it.reader) for it in wanted)]
    return {peering.pair for peering in both if exists(peering)}


def _change(changes: Sequence[Planned], *, keep: set[Pair], report: Report) -> list[Planned]:
    """Do them in order; one that fails, or Ctrl-C among them, takes back those before it of pairs
    that are new.
    """
    made: list[Planned] = []
    try:
        for each in changes:
            report(each.change.what)
            made.append(each)
            each.change.do()
    except (OSError, MeshError, CertificateError, api.NoAnswer, KeyboardInterrupt):
        for told in _undo([it for it in made if it.pair not in keep], report):
            if told.startswith(LEFT):
                complain(told)
        raise
    return made


def _undo(made: Sequence[Planned], report: Report) -> tuple[str, ...]:
    """Last made, first undone; what cannot be undone is said with the error that keeps it. Ctrl-C
    ends it, and what is left is told.
    """
    told: list[str] = []
    for each in reversed(made):
        try:
            report(f"undoing: {each.change.what}")
            each.change.undo()
            told.append(each.change.what)
        except (OSError, MeshError, api.NoAnswer) as error:
            told.append(f"{LEFT}, {error}: {each.change.what}")
        except KeyboardInterrupt:
            for left in reversed(made[: len(made) - len(told)]):
                complain(f"{LEFT}, interrupted: {left.change.what}")
            raise
    return tuple(told)


def _failed(pair: Pair, outcomes: Sequence[watch.Outcome]) -> bool:
    """Whether a node that answers is not done, or of one of the two no node answers at all.

    Nodes whose agent is dead catch up when it runs again: alone they are no reason to part.
    """
    for reader in sorted(pair):
        mine = [it for it in outcomes if it.node.split("/")[0] == reader and it.peer in pair]
        if any(it.reached and not it.done for it in mine):
            return True
        if mine and not any(it.reached for it in mine):
            return True
    return False


def _mutual(wanted: Sequence[Peering]) -> list[Peering]:
    """Where packets can come back: the source follows the reader, too."""
    return [it for it in wanted if exists(Peering(it.source, it.reader))]


def _reached(pairs: Sequence[watch.Pair], nodes: Sequence[watch.Outcome]) -> list[watch.Pair]:
    answered: Mapping[tuple[str, str], bool] = {(it.node, it.peer): it.reached for it in nodes}
    return [pair for pair in pairs if answered.get((pair.node, pair.peer), False)]


def _causes(mesh: Mesh, result: Result) -> Iterator[Finding]:
    """What the first node that failed finds on its way to the peer."""
    first = next((it for it in result.late if it.reached), None)
    if first is None:
        return
    with suppress(MeshError):
        found = troubleshoot.gather(mesh, first.peer, first.node)
        yield from (finding for _, finding in found.failures)


def _told(made: Sequence[Planned]) -> tuple[str, ...]:
    return tuple(each.change.what for each in made)
