"""``meshctl connect`` and ``disconnect``: what was asked, what came of it, and what to do next."""

from collections.abc import Iterator, Sequence
from typing import Annotated

import typer
import yaml

from clustermesh.findings import Finding
from clustermesh.meshctl import completing, gitops, plan, watch
from clustermesh.meshctl.context import MeshOption, open_mesh
from clustermesh.meshctl.desk import unasked
from clustermesh.meshctl.errors import Exit, MeshctlError
from clustermesh.meshctl.output import (
    Format,
    Output,
    Progress,
    columns,
    complain,
    say,
    show_json,
)
from clustermesh.meshctl.peering import Mode, Peering, peerings
from clustermesh.meshctl.performing import (
    CONNECT,
    DISCONNECT,
    Result,
    Task,
    connected,
    perform,
    planned,
)
from clustermesh.meshctl.quantities import SECONDS, seconds
from clustermesh.meshfile import Cluster, Mesh

Clusters = Annotated[list[str], completing.cluster_argument("Two or more clusters.")]
Timeout = Annotated[
    float,
    typer.Option(
        parser=seconds, metavar=SECONDS, help="How long to wait for the nodes; 0: do not wait."
    ),
]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the nodes.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")]
Force = Annotated[bool, typer.Option("--force", help="Connect although a check of plan fails.")]
Print = Annotated[
    bool,
    typer.Option("--print", help="Print the Secrets that the readers need; change nothing."),
]
Keep = Annotated[bool, typer.Option("--keep", help="Leave a connection that does not work.")]

WAIT = 60.0


def connect(
    clusters: Clusters,
    mesh: MeshOption = None,
    mode: plan.Connections = Mode.MESH,
    wait: Wait = True,  # noqa: FBT002  # typer makes it a flag
    timeout: Timeout = WAIT,
    dry_run: DryRun = False,  # noqa: FBT002  # typer makes it a flag
    force: Force = False,  # noqa: FBT002  # typer makes it a flag
    keep: Keep = False,  # noqa: FBT002  # typer makes it a flag
    show: Print = False,  # noqa: FBT002  # typer makes it a flag
    output: Output = Format.TABLE,
) -> None:
    """Let clusters follow each other, and prove that it works.

    It waits until every node has what the others publish, then sends probes through the overlay.
    What `meshctl plan` finds wrong with clusters that are not connected yet stops it beforehand.
    A pair that was not connected before and does not work is parted again. With --dry-run it is
    `meshctl plan`.
    """
    opened = open_mesh(mesh)
    if show:
        _print_secrets(peerings(opened, clusters, mode), output)
        return
    if dry_run:
        plan.show(plan.make(opened, clusters, mode), output)
        return
    if not force:
        _refuse_what_cannot_work(opened, clusters, mode)
    with Progress() as progress:
        result = perform(
            CONNECT,
            opened,
            clusters,
            timeout=timeout if wait else 0.0,
            report=progress,
            mode=mode,
            keep=keep,
        )
    _end(CONNECT, result, output, asked=wait and timeout > 0)


def disconnect(
    clusters: Clusters,
    mesh: MeshOption = None,
    wait: Wait = True,  # noqa: FBT002  # typer makes it a flag
    timeout: Timeout = WAIT,
    dry_run: DryRun = False,  # noqa: FBT002  # typer makes it a flag
    output: Output = Format.TABLE,
) -> None:
    """Part clusters; the peer may be dead.

    It waits until no node that answers holds anything of the other. What is changed and waited for
    is on this side.
    """
    opened = open_mesh(mesh)
    if dry_run:
        changes = [it.change.what for it in planned(DISCONNECT, peerings(opened, clusters))]
        result = Result(changes=tuple(changes), nodes=())
        _print(DISCONNECT, result, output, title="would change:")
        return
    members = [opened.cluster(name) for name in clusters]
    before = [unasked(it) for it in members]
    with Progress() as progress:
        waiting = timeout if wait else 0.0
        result = perform(DISCONNECT, opened, clusters, timeout=waiting, report=progress)
    for one, why in zip(members, before, strict=True):
        if why or (one.context and (why := unasked(one))):
            complain(_as_it_was(one, why))
    _end(DISCONNECT, result, output, asked=waiting > 0)


def _as_it_was(cluster: Cluster, why: str) -> str:
    if not cluster.context:
        return (
            f"{why}: join tokens that {cluster.name} may have given to the others are as they were;"
            " see `meshctl token list` when its apiserver can be asked"
        )
    return (
        f"{cluster.name}: {why}: the others may be in its list of users, and have join tokens that"
        " are good; disconnect again when that is mended"
    )


def _print_secrets(wanted: Sequence[Peering], output: Format) -> None:
    made = list(gitops.secrets(wanted))
    if output is Format.JSON:
        show_json(made)
    else:
        say(yaml.safe_dump_all(made, sort_keys=False).rstrip())
    for note in gitops.notes(wanted):
        complain(note)


def _refuse_what_cannot_work(mesh: Mesh, clusters: Sequence[str], mode: Mode) -> None:
    """Only for pairs that are new: one that is connected is mended, whatever a check says."""
    wanted = peerings(mesh, clusters, mode)
    if {it.pair for it in wanted} <= connected(wanted):
        return
    failures = plan.make(mesh, clusters, mode).blocking
    if failures:
        raise MeshctlError(
            f"nothing was changed, because it would not work: {_causes(failures)}."
            " See `meshctl plan`; --force connects nevertheless.",
            Exit.NOT_READY,
        )


def _end(task: Task, result: Result, output: Format, *, asked: bool) -> None:
    _print(task, result, output, title="changed:")
    for outcome in result.nodes:
        if not outcome.reached:
            complain(f"{outcome.node}: its agent does not answer; it follows when it runs again")
    if asked and not result.nodes:
        complain("not verified: no agent of these clusters can be asked from here")
    late = result.late
    if not late:
        return
    first = late[0]
    what = task.done if first in result.nodes else "reached through the overlay"
    kept = "The configuration stays as it is; look again with `meshctl status`."
    if result.undone:
        kept = "What was new was taken back (--keep leaves it)."
    cause = f" Cause: {_causes(result.causes)}." if result.causes else ""
    raise MeshctlError(
        f"{len(late)} of {len(result.nodes) + len(result.probes)} not {what} in time; the first is"
        f" {first.node} with {first.peer}: {first.why}.{cause} {kept}",
        Exit.NOT_READY,
    )


def _print(task: Task, result: Result, output: Format, *, title: str) -> None:
    if output is Format.JSON:
        show_json(result)
    else:
        say("\n".join(render(task, result, title=title)))


def render(task: Task, result: Result, *, title: str) -> Iterator[str]:
    """What changed, what the nodes say, what the probes say, what was taken back."""
    yield title if result.changes else "nothing to change"
    yield from (f"  {change}" for change in result.changes)
    for done, not_done, outcomes in (
        (task.done, f"not {task.done}", result.nodes),
        ("answers", "silent", result.probes),
    ):
        if outcomes:
            yield ""
            yield columns(
                ("NODE", "PEER", "STATE", "DETAIL"),
                [(it.node, it.peer, _word(done, not_done, it), it.why) for it in outcomes],
            )
    if result.undone:
        yield "\ntaken back:"
        yield from (f"  {change}" for change in result.undone)


def _word(done: str, not_done: str, outcome: watch.Outcome) -> str:
    if not outcome.reached:
        return "unreached"
    return done if outcome.done else not_done


def _causes(findings: Sequence[Finding]) -> str:
    first = findings[0]
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    return f"{first.code}: {first.where}: {first.seen}{more}"
