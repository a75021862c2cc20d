"""What happens to packets on every node, live: ``meshctl monitor``."""

import queue
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final, NoReturn
from urllib.parse import urlencode

import msgspec
import typer

from clustermesh.flows import Filter, Flow, FlowEnd, Missed, Told
from clustermesh.meshctl import api
from clustermesh.meshctl.context import MeshOption, NodeOption, open_mesh
from clustermesh.meshctl.errors import Exit, MeshctlError
from clustermesh.meshctl.output import Format, Output, complain, say
from clustermesh.meshfile import full_name

SILENCE: Final = 70.0
"""Seconds without a line after which an agent is taken for gone; it has something to say, at
least an empty line, within ``--monitor-beat`` (60 s at most)."""
AGAIN: Final = 1.0
"""Seconds until an agent that did not answer is asked again."""

POD: Final = "[NAMESPACE/]NAME"

Heard = tuple[str, bytes | api.NoAnswer]
"""A node, and a line of its agent or why there is none."""


def monitor(
    mesh: MeshOption = None,
    node: NodeOption = "",
    output: Output = Format.TABLE,
    type_: Annotated[
        str,
        typer.Option(
            "--type", metavar="TYPE", help="Only drop, or only trace (packets that pass)."
        ),
    ] = "",
    from_cluster: Annotated[
        str, typer.Option(metavar="CLUSTER", help="Only packets of this cluster.")
    ] = "",
    to_cluster: Annotated[
        str, typer.Option(metavar="CLUSTER", help="Only packets for this cluster.")
    ] = "",
    from_pod: Annotated[str, typer.Option(metavar=POD, help="Only of this pod.")] = "",
    to_pod: Annotated[str, typer.Option(metavar=POD, help="Only for this pod.")] = "",
    to_service: Annotated[
        str,
        typer.Option(metavar="NAMESPACE/NAME", help="Only for backends of this service."),
    ] = "",
    count: Annotated[
        int,
        typer.Option(
            "--count", "-c", metavar="NUMBER", help="Stop after so many; 0: go on.", min=0
        ),
    ] = 0,
) -> None:
    """Show packets that the overlay drops or passes, live.

    With the names of pods and clusters, until Ctrl-C.

    Of packets that pass, one is shown for each flow, new TCP flag and five seconds.
    """
    given = {
        "type": type_,
        "from-cluster": from_cluster,
        "to-cluster": to_cluster,
        "from-pod": from_pod,
        "to-pod": to_pod,
        "to-service": to_service,
    }
    try:
        wanted = Filter.of(given)
    except ValueError as error:
        raise MeshctlError(f"{error}.", Exit.USAGE) from None
    path = "/v1/monitor"
    if query := wanted.query():
        path += f"?{urlencode(query)}"
    agents = {
        full_name(cluster, entry): entry.agent for cluster, entry in open_mesh(mesh).nodes(node)
    }
    heard: queue.SimpleQueue[Heard] = queue.SimpleQueue()
    for name, url in agents.items():
        threading.Thread(target=_listen, args=(name, url, path, heard), daemon=True).start()
    try:
        _print(heard, len(agents), output, count)
    except KeyboardInterrupt:
        return


def _listen(name: str, url: str, path: str, heard: "queue.SimpleQueue[Heard]") -> NoReturn:
    while True:
        try:
            for line in api.lines(url, path, timeout=SILENCE):
                heard.put((name, line))
        except api.NoAnswer as error:
            heard.put((name, error))
        time.sleep(AGAIN)


def _print(heard: "queue.SimpleQueue[Heard]", agents: int, output: Format, count: int) -> None:
    silent: set[str] = set()
    answered = False
    shown = 0
    while not count or shown < count:
        name, line = heard.get()
        if isinstance(line, api.NoAnswer):
            if name not in silent:
                complain(f"{name}: {line}; trying again")
            silent.add(name)
            if len(silent) == agents and not answered:
                raise MeshctlError("no agent answers.", Exit.UNREACHABLE)
            continue
        answered = True
        silent.discard(name)
        if not line.strip():
            continue
        told = msgspec.json.decode(line, type=Told)
        if output is Format.JSON:
            say(line.decode().rstrip())
        elif isinstance(told, Missed):
            complain(missed_line(told))
        else:
            say(flow_line(told))
        shown += isinstance(told, Flow)


def flow_line(flow: Flow) -> str:
    """One packet in one line."""
    moment = datetime.fromtimestamp(flow.time).astimezone().strftime("%H:%M:%S.%f")[:-3]
    what = f"{flow.protocol} {flow.flags}".strip()
    why = flow.reason or flow.point
    words: Sequence[str] = (
        moment,
        flow.node,
        flow.type.upper(),
        flow.direction,
        what,
        f"{_end(flow.source)} -> {_end(flow.destination)}",
        f"({why})" if why else "",
    )
    return "  ".join(word for word in words if word)


def _end(end: FlowEnd) -> str:
    address = f"[{end.address}]" if ":" in end.address else end.address
    place = f"{address}:{end.port}" if end.port else address
    pod = f"{end.namespace}/{end.pod}" if end.pod else end.namespace and f"{end.namespace}/?"
    who = pod or (f"node {end.node}" if end.node else "")
    if not who and not end.cluster and end.identity:
        who = next(iter(end.labels), f"identity {end.identity}")
    return " ".join(word for word in (end.cluster, who, place) if word) or "?"


def missed_line(missed: Missed) -> str:
    """What was not shown, and why, in one line."""
    parts = {
        "suppressed by the limit": missed.suppressed,
        "lost in a full ring": missed.lost,
        "skipped by a slow listener": missed.skipped,
    }
    said = ", ".join(f"{number} {why}" for why, number in parts.items() if number)
    return f"{missed.node}: not shown: {said}"
