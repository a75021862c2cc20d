"""``meshctl lab``: a real mesh on this machine, to try things on and to break."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from signal import SIGHUP, SIGTERM
from types import FrameType
from typing import Annotated

import msgspec
import typer

from clustermesh.lab import build, enter, operate, processes, teardown
from clustermesh.lab import demo as show
from clustermesh.lab.errors import LabError
from clustermesh.lab.paths import Paths
from clustermesh.lab.state import State, locked, running
from clustermesh.lab.topology import (
    LAB_NAME,
    Flavour,
    Topology,
    default_topology,
    load_topology,
)
from clustermesh.meshctl.errors import Exit, MeshctlError
from clustermesh.meshctl.generate import generate
from clustermesh.meshctl.output import Format, Output, Progress, columns, say, show_json, tell
from clustermesh.meshctl.quantities import SECONDS, seconds

app = typer.Typer(help="A real mesh of network namespaces on this machine.", no_args_is_help=True)
app.command()(generate)

Name = Annotated[
    str, typer.Option("--name", metavar="LAB", help="Which lab, when there are several.")
]
File = Annotated[
    Path | None, typer.Option("--topology", metavar="FILE", help="Build what this YAML file says.")
]


class Member(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """One process of the lab, as ``lab status`` lists it."""

    target: str
    pid: int
    state: str
    log: str
    argv: tuple[str, ...]


@app.command()
def up(
    name: Name = "lab",
    clusters: Annotated[int, typer.Option(metavar="NUMBER", help="How many clusters.")] = 2,
    nodes: Annotated[int, typer.Option(metavar="NUMBER", help="How many nodes in each.")] = 2,
    ipv6: Annotated[bool, typer.Option("--ipv6", help="IPv6 beside IPv4.")] = False,  # noqa: FBT002  # typer makes it a flag
    kvstoremesh: Annotated[  # noqa: FBT002  # typer makes it a flag
        bool, typer.Option("--kvstoremesh", help="A cache of remote clusters in each cluster.")
    ] = False,
    flavour: Annotated[Flavour, typer.Option(help="Whose objects describe it.")] = Flavour.CORE,
    topology: File = None,
    timeout: Annotated[
        float,
        typer.Option(parser=seconds, metavar=SECONDS, help="Until when all must be ready."),
    ] = build.READY_TIMEOUT,
    output: Output = Format.TABLE,
) -> None:
    """Build a lab and wait until it is ready. Ctrl-C removes what was made."""
    wanted = chosen_topology(topology, clusters, nodes, flavour, ipv6=ipv6)
    if kvstoremesh:
        wanted = msgspec.structs.replace(wanted, kvstoremesh=True)
    paths = paths_of(name)
    with Progress() as progress, terminable():
        state = build.up(paths, wanted, progress, timeout=timeout)
    ready = [f"{name}: ready after {took:.1f} s" for name, took in sorted(state.ready.items())]
    told = {"name": paths.lab, "mesh": str(paths.mesh), "ready": state.ready}
    tell(told, "\n".join([*ready, next_steps(paths, state)]), output)


@app.command()
def down(name: Name = "lab", output: Output = Format.TABLE) -> None:
    """Remove a lab, also one that is half built. Removing one that is not there is fine."""
    if os.geteuid() != 0:
        raise LabError("removing a lab needs root. Run it again as root: sudo meshctl lab down")
    paths = paths_of(name)
    with locked(paths):
        found = teardown.remains(paths)
        with Progress() as progress, teardown.uninterrupted():
            teardown.tear_down(paths, progress)
    nothing = f"there is no lab {name!r}: nothing to remove"
    tell({"removed": found}, f"removed: {', '.join(found)}" if found else nothing, output)


@app.command()
def status(name: Name = "lab", output: Output = Format.TABLE) -> None:
    """Show what runs and what was killed. Ends with exit code 3 when something is dead."""
    paths = paths_of(name)
    state = running(paths)
    members = [
        Member(
            target=process.target,
            pid=process.pid,
            state="running" if processes.alive(process) else "dead",
            log=process.log,
            argv=process.argv,
        )
        for process in sorted(state.processes.values(), key=lambda process: process.target)
    ]
    if output is Format.JSON:
        show_json({"name": name, "directory": str(paths.top), "processes": members})
    else:
        rows = [(m.target, m.state, str(m.pid), where(state, m.target), m.log) for m in members]
        say(columns(("PROCESS", "STATE", "PID", "ADDRESS", "LOG"), rows))
    if dead := [member.target for member in members if member.state == "dead"]:
        raise MeshctlError(
            f"{len(dead)} of {len(members)} processes are dead: {', '.join(dead)}."
            " Start them again: meshctl lab restart",
            Exit.NOT_READY,
        )


@app.command(
    "exec",
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
    },
)
def execute(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="PLACE",
            help="CLUSTER/POD, CLUSTER/NODE, CLUSTER/control-plane or underlay.",
            show_default=False,
        ),
    ],
    name: Name = "lab",
) -> None:
    """Run a program in a pod, on a node or on the underlay.

    A shell, when none is named. Its options go behind --: lab exec cluster-a/node-1 -- ip -6 route
    """
    netns, cgroup = operate.location(paths_of(name), target)
    arguments = context.args[1:] if context.args[:1] == ["--"] else context.args
    program = arguments or [os.environ.get("SHELL", "/bin/sh")]
    enter.enter(netns, cgroup)
    try:
        os.execvp(program[0], program)  # noqa: S606  # a list, no shell: becoming it is the point
    except OSError as error:
        raise MeshctlError(f"cannot run {program[0]}: {error.strerror}.") from error


@app.command()
def annotate(
    target: Annotated[
        str,
        typer.Argument(
            metavar="OBJECT", help="CLUSTER/SERVICE, or CLUSTER/KIND/NAME.", show_default=False
        ),
    ],
    changes: Annotated[
        list[str],
        typer.Argument(
            metavar="CHANGE", help="KEY=VALUE to set, KEY- to remove.", show_default=False
        ),
    ],
    name: Name = "lab",
    namespace: Annotated[str, typer.Option(metavar="NAMESPACE", help="Of the object.")] = "default",
    output: Output = Format.TABLE,
) -> None:
    """Change annotations in a manifest of the lab, in one step."""
    path = operate.annotate(paths_of(name), target, parsed_changes(changes), namespace=namespace)
    tell({"changed": str(path)}, f"changed {path}", output)


@app.command()
def scale(
    target: Annotated[str, typer.Argument(metavar="CLUSTER/WORKLOAD", show_default=False)],
    replicas: Annotated[
        int, typer.Argument(metavar="NUMBER", help="How many pods.", show_default=False)
    ],
    name: Name = "lab",
    output: Output = Format.TABLE,
) -> None:
    """Give a workload more or fewer pods."""
    done = operate.scale(paths_of(name), target, replicas)
    text = [f"added {pod}" for pod in done.added] + [f"removed {pod}" for pod in done.removed]
    tell(done._asdict(), "\n".join(text) or f"{target} has {replicas} pods already", output)


@app.command()
def kill(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PROCESS",
            help="CLUSTER/etcd, CLUSTER/NODE/agent, CLUSTER/POD ...",
            show_default=False,
        ),
    ] = None,
    name: Name = "lab",
    all_agents: Annotated[bool, typer.Option("--all-agents", help="Every agent.")] = False,  # noqa: FBT002  # typer makes it a flag
    number: Annotated[
        str, typer.Option("--signal", "-s", metavar="SIGNAL", help="Name of the signal.")
    ] = "KILL",
    output: Output = Format.TABLE,
) -> None:
    """Send a signal to processes of the lab. Nobody starts them again but you."""
    if not targets and not all_agents:
        raise MeshctlError("name processes (see `meshctl lab status`) or --all-agents.", Exit.USAGE)
    sent = operate.kill(paths_of(name), targets or [], signal_of(number), all_agents=all_agents)
    text = [f"{it}: {'signalled' if alive else 'was dead already'}" for it, alive in sent]
    tell([{"target": it, "signalled": alive} for it, alive in sent], "\n".join(text), output)


@app.command()
def restart(
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROCESS", help="Which; none: all the dead.", show_default=False),
    ] = None,
    name: Name = "lab",
    wrapper: Annotated[
        str,
        typer.Option(
            metavar="COMMAND", help="Start them under it, as in 'strace -f -o /tmp/trace'."
        ),
    ] = "",
    wait: Annotated[bool, typer.Option(help="Wait until they are ready.")] = True,  # noqa: FBT002  # typer makes it a flag
    output: Output = Format.TABLE,
) -> None:
    """Start processes with exactly the command lines they had."""
    paths = paths_of(name)
    started = operate.restart(paths, targets or [], wrapper=wrapper.split())
    text = [f"{process.target}: started, pid {process.pid}" for process in started]
    told = [{"target": process.target, "pid": process.pid} for process in started]
    tell({"started": told}, "\n".join(text) or "nothing is dead", output)
    if wait and started:
        with Progress() as progress:
            operate.wait_restarted(paths, started, progress)


@app.command()
def demo(
    name: Name = "lab",
    topology: File = None,
) -> None:
    """Connect the clusters of a lab, and prove that it works.

    Of the lab that is up, else of one that is built.
    """
    paths = paths_of(name)
    with Progress() as progress, terminable():
        if not build.is_up(paths):
            wanted = chosen_topology(topology, 2, 2, Flavour.CORE, ipv6=False)
            progress.say(show.announcement(paths))
            build.up(paths, wanted, progress)
        show.run(paths, progress.say, progress)


def paths_of(name: str) -> Paths:
    """``LabError`` when it cannot be a lab's name."""
    if not LAB_NAME.fullmatch(name):
        raise LabError(
            f"{name!r} cannot be a lab's name: use 1 to 12 of a-z and 0-9, a letter first."
        )
    return Paths(name)


def chosen_topology(
    file: Path | None, clusters: int, nodes: int, flavour: Flavour, *, ipv6: bool
) -> Topology:
    """The file's, or one of so many clusters."""
    if file is not None:
        return load_topology(file)
    return default_topology(clusters=clusters, nodes=nodes, flavour=flavour, ipv6=ipv6)


def parsed_changes(written: Sequence[str]) -> dict[str, str | None]:
    """``key=value`` and ``key-``, as kubectl has it."""
    changes: dict[str, str | None] = {}
    for text in written:
        key, equals, value = text.partition("=")
        if equals and key:
            changes[key] = value
        elif not equals and len(text) > 1 and text.endswith("-"):
            changes[text[:-1]] = None
        else:
            raise MeshctlError(f"{text!r} is neither KEY=VALUE nor KEY-.", Exit.USAGE)
    return changes


def signal_of(written: str) -> signal.Signals:
    """``KILL``, ``SIGKILL`` or ``9``."""
    name = written.upper().removeprefix("SIG")
    try:
        return signal.Signals(int(name)) if name.isdecimal() else signal.Signals[f"SIG{name}"]
    except (KeyError, ValueError):
        raise MeshctlError(f"{written!r} is not the name of a signal.", Exit.USAGE) from None


def where(state: State, target: str) -> str:
    """The addresses of a pod; empty for everything else."""
    return ",".join(state.pods[target].ips) if target in state.pods else ""


def next_steps(paths: Paths, state: State) -> str:
    """What to type after `up`."""
    names = " ".join(cluster.name for cluster in state.topology.clusters)
    option = "" if paths.lab == "lab" else f" --name {paths.lab}"
    return (
        f"connect them:   meshctl connect {names}\n"
        f"see the proof:  meshctl lab demo{option}\n"
        f"remove it all:  meshctl lab down{option}"
    )


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does, so that it cleans up."""

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (SIGTERM, SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
