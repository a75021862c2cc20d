"""``meshctl explain service``: what each cluster wants, what each node does, and why."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec
import typer

from clustermesh.explanation import Explanation
from clustermesh.meshctl import api, completing, explain_text
from clustermesh.meshctl.context import MeshOption, open_mesh
from clustermesh.meshctl.errors import Exit, MeshctlError
from clustermesh.meshctl.output import Format, Output, complain, say, show_json
from clustermesh.meshfile import Mesh, full_name

app = typer.Typer(help="Why things are as they are.", no_args_is_help=True)

Service = Annotated[str, typer.Argument(metavar="NAMESPACE/NAME", show_default=False)]
From = Annotated[str, completing.node_option("--from", "As this node sees it.")]


class Explained(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """By node (``cluster/node``): what its agent says; why not, where it does not answer.

    ``asked`` are the nodes whose view was asked for; the others only tell their cluster's wishes.
    """

    service: str
    asked: tuple[str, ...]
    nodes: dict[str, Explanation]
    silent: dict[str, str] = {}

    @property
    def views(self) -> list[Explanation]:
        return [self.nodes[name] for name in self.asked if name in self.nodes]

    @property
    def wrong(self) -> list[str]:
        """Where a node's maps are not as they should be, though nothing waits to be written."""
        return [
            f"{view.cluster}/{view.node}: {story.frontend}: {sentence}"
            for view in self.views
            if view.settled
            for story in view.frontends
            for sentence in story.wrong
        ]


@app.command("service")
def service(
    name: Service, mesh: MeshOption = None, view: From = "", output: Output = Format.TABLE
) -> None:
    """Who answers a service, and why.

    What each cluster wants, every backend with the reason why it is in or out, and what the maps
    of the node hold.

    Ends with exit code 3 when the maps of a node are not as the facts say.
    """
    _check(name)
    told = gather(open_mesh(mesh), name, view)
    if output is Format.JSON:
        show_json(told)
    elif any(found.found for found in told.nodes.values()):
        say(explain_text.render(told.service, list(told.nodes.values()), told.views))
    for node, reason in told.silent.items():
        complain(f"{node}: {reason}")
    _judge(told)


def gather(mesh: Mesh, name: str, view: str = "") -> Explained:
    """Ask every node, or the one meant and then others until each cluster has spoken."""
    path = f"/v1/explain?service={name}"
    asked = {full_name(*pair): pair[1].agent for pair in mesh.nodes(view)}
    nodes, silent = api.fetch_all(asked, path, Explanation)
    for cluster, entry in mesh.nodes():
        node = full_name(cluster, entry)
        if node in asked or any(found.cluster == cluster.name for found in nodes.values()):
            continue
        try:
            nodes[node] = api.fetch(entry.agent, path, Explanation)
        except api.NoAnswer as error:
            silent[node] = str(error)
    return Explained(service=name, asked=tuple(asked), nodes=nodes, silent=silent)


def _check(name: str) -> None:
    namespace, slash, rest = name.partition("/")
    wanted = "abcdefghijklmnopqrstuvwxyz0123456789-."
    if not slash or not namespace or not rest or not set(namespace + rest) <= set(wanted):
        text = f"{name!r} is no service: expected NAMESPACE/NAME, such as default/web."
        raise MeshctlError(text, Exit.USAGE)


def _judge(told: Explained) -> None:
    if not set(told.asked) & told.nodes.keys():
        raise MeshctlError("no agent that was asked answers.", Exit.UNREACHABLE)
    if not any(found.found for found in told.nodes.values()):
        raise MeshctlError(_unknown(told.service, told.nodes))
    if told.wrong:
        raise MeshctlError(_count(told.wrong), Exit.NOT_READY)
    if set(told.asked) & told.silent.keys():
        raise MeshctlError("not every agent that was asked answers.", Exit.UNREACHABLE)


def _count(wrong: Sequence[str]) -> str:
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    return f"the maps are not as they should be: {wrong[0]}{more}"


def _unknown(name: str, nodes: Mapping[str, Explanation]) -> str:
    near = sorted({similar for found in nodes.values() for similar in found.similar})
    hint = f" Did you mean {', '.join(near)}?" if near else ""
    return f"no cluster has a service {name}.{hint} All of them: meshctl service list"
