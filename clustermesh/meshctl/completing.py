"""What a shell completes besides commands and options: the names that the mesh's file has."""

from contextlib import suppress
from pathlib import Path

import typer

from clustermesh import meshfile
from clustermesh.errors import MeshError


def cluster_argument(text: str) -> object:
    """A cluster, or several, by position."""
    return typer.Argument(metavar="CLUSTER", help=text, show_default=False, autocompletion=clusters)


def cluster_option(text: str) -> object:
    """One cluster, by ``--cluster``."""
    return typer.Option(
        "--cluster", metavar="CLUSTER", help=text, show_default=False, autocompletion=clusters
    )


def node_option(name: str, text: str) -> object:
    """One node."""
    return typer.Option(
        name, metavar="CLUSTER/NODE", help=text, show_default=False, autocompletion=nodes
    )


def clusters(context: typer.Context, incomplete: str) -> list[str]:
    """Names of clusters that the command line does not have yet."""
    taken = context.params.get("clusters") or ()
    names = [cluster.name for cluster in _mesh(context).clusters]
    return [name for name in names if name.startswith(incomplete) and name not in taken]


def nodes(context: typer.Context, incomplete: str) -> list[str]:
    """Nodes, as ``CLUSTER/NODE``."""
    names = [meshfile.full_name(*pair) for pair in _mesh(context).nodes()]
    return [name for name in names if name.startswith(incomplete)]


def _mesh(context: typer.Context) -> meshfile.Mesh:
    """As its file has it, without asking anybody; empty where it cannot be read."""
    from clustermesh.meshctl.context import mesh_path  # it needs these for its own options

    given = context.params.get("mesh")
    with suppress(MeshError):
        return meshfile.load(mesh_path(Path(given) if given else None))
    return meshfile.Mesh(clusters=())
