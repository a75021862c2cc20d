"""``meshctl connect`` and ``disconnect``: change files, wait for the nodes, say what came of it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, NamedTuple

import msgspec
import typer

from clustermesh.meshctl import plan, watch
from clustermesh.meshctl.context import MeshOption, open_mesh
from clustermesh.meshctl.errors import Exit, MeshctlError
from clustermesh.meshctl.meshfile import Mesh
from clustermesh.meshctl.output import (
    Format,
    Output,
    Progress,
    columns,
    complain,
    say,
    show_json,
)
from clustermesh.meshctl.peering import Change, Peering, making, peerings, unmaking

Clusters = Annotated[list[str], typer.Argument(help="Two or more clusters.", show_default=False)]
Timeout = Annotated[float, typer.Option(help="Seconds to wait for the nodes; 0: do not wait.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")]

WAIT = 60.0


class Task(NamedTuple):
    """What to change for a peering, and how to see on a node that it has taken effect."""

    changes: Callable[[Peering], Iterator[Change]]
    judge: watch.Judge
    done: str
    waiting: str


CONNECT = Task(making, watch.synced, "synced", "waiting for the nodes to sync")
DISCONNECT = Task(unmaking, watch.drained, "drained", "waiting for the nodes to drain")


class Result(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """What was changed, and what each node made of it."""

    changes: tuple[str, ...]
    nodes: tuple[watch.Outcome, ...]


def connect(
    clusters: Clusters,
    mesh: MeshOption = None,
    timeout: Timeout = WAIT,
    dry_run: DryRun = False,  # noqa: FBT002  # typer makes it a flag
    output: Output = Format.TABLE,
) -> None:
    """Let clusters follow each other, and wait until every node has what the others publish.

    With --dry-run it is `meshctl plan`: it says what would change, and checks both sides.
    """
    opened = open_mesh(mesh)
    if dry_run:
        plan.show(plan.make(opened, clusters), output)
    else:
        _command(CONNECT, opened, clusters, timeout, output)


def disconnect(
    clusters: Clusters,
    mesh: MeshOption = None,
    timeout: Timeout = WAIT,
    dry_run: DryRun = False,  # noqa: FBT002  # typer makes it a flag
    output: Output = Format.TABLE,
) -> None:
    """Part clusters, and wait until no node that answers holds anything of the other.

    The peer may be dead: what is changed and waited for is on this side.
    """
    _command(DISCONNECT, open_mesh(mesh), clusters, None if dry_run else timeout, output)


def perform(
    task: Task,
    mesh: Mesh,
    clusters: Sequence[str],
    *,
    timeout: float,
    report: Callable[[str], None],
) -> Result:
    """Make the changes and wait; raises ``MeshctlError``, ``CertificateError`` or ``OSError``."""
    wanted = peerings(mesh, clusters)
    changes = _planned(task, wanted)
    for change in changes:
        report(change.what)
        change.do()
    outcomes: Sequence[watch.Outcome] = ()
    if timeout > 0:
        report(task.waiting)
        nodes = watch.pairs(mesh, wanted)
        outcomes = watch.until(nodes, task.judge, timeout=timeout, report=report)
    return Result(changes=tuple(change.what for change in changes), nodes=tuple(outcomes))


def _planned(task: Task, wanted: Sequence[Peering]) -> list[Change]:
    """Every change; what makes agents do something comes last when connecting, first when parting,
    so that no agent is refused by a peer that does not know it yet, or no more.
    """
    changes = [change for peering in wanted for change in task.changes(peering)]
    return sorted(changes, key=lambda change: change.order)


def _command(
    task: Task, mesh: Mesh, clusters: Sequence[str], timeout: float | None, output: Format
) -> None:
    if timeout is None:
        planned = _planned(task, peerings(mesh, clusters))
        result = Result(changes=tuple(change.what for change in planned), nodes=())
    else:
        with Progress() as progress:
            result = perform(task, mesh, clusters, timeout=timeout, report=progress)
    if output is Format.JSON:
        show_json(result)
    else:
        say(_told(task, result, dry_run=timeout is None))
    _judge(task, result)


def _told(task: Task, result: Result, *, dry_run: bool) -> str:
    title = "would change:" if dry_run else "changed:"
    lines = [title, *(f"  {change}" for change in result.changes)] if result.changes else []
    lines = lines or ["nothing to change on disk"]
    if result.nodes:
        rows = [
            (outcome.node, outcome.peer, _word(task, outcome), outcome.why)
            for outcome in result.nodes
        ]
        lines += ["", columns(("NODE", "PEER", "STATE", "DETAIL"), rows)]
    return "\n".join(lines)


def _word(task: Task, outcome: watch.Outcome) -> str:
    if not outcome.reached:
        return "unreached"
    return task.done if outcome.done else f"not {task.done}"


def _judge(task: Task, result: Result) -> None:
    late = [outcome for outcome in result.nodes if not outcome.done]
    silent = [outcome for outcome in result.nodes if outcome.done and not outcome.reached]
    for outcome in silent:
        complain(f"{outcome.node}: its agent does not answer; it follows when it runs again")
    if late:
        first = late[0]
        raise MeshctlError(
            f"{len(late)} of {len(result.nodes)} not {task.done} in time; the first is"
            f" {first.node} with {first.peer}: {first.why}. The configuration stays as it is;"
            " look again with `meshctl status`.",
            Exit.NOT_READY,
        )
