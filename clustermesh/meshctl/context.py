"""Which mesh a command is about: ``--mesh FILE``, ``--context NAME``, MESHCTL_MESH, or a lab."""

import os
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from clustermesh import meshfile
from clustermesh.lab.paths import lab_root
from clustermesh.meshctl import completing
from clustermesh.meshctl.errors import Exit, MeshctlError
from clustermesh.meshctl.output import complain

MeshOption = Annotated[
    Path | None,
    typer.Option(
        "--mesh",
        metavar="FILE",
        help="Mesh file; else the one MESHCTL_MESH names; else that of the lab that is up.",
        show_default=False,
    ),
]
NodeOption = Annotated[str, completing.node_option("--node", "Only this node.")]

NAMESPACE = "kube-system"


class Chosen(NamedTuple):
    """What the options before (or behind) the command say of the mesh."""

    contexts: tuple[str, ...] = ()
    namespace: str = NAMESPACE
    kubeconfig: str = ""
    mesh: Path | None = None


CHOSEN: ContextVar[Chosen] = ContextVar("chosen", default=Chosen())  # noqa: B039  # it is a value

WITH_VALUE = frozenset({"--context", "--namespace", "-n", "--kubeconfig"})
ALONE = frozenset({"--no-color"})


def hoisted(words: Sequence[str]) -> list[str]:
    """The command line with the options of every command brought to its front. [pure]

    What follows ``--``, and what belongs to ``lab``, is left as it stands.
    """
    if next((word for word in words if not word.startswith("-")), "") == "lab":
        return list(words)
    front: list[str] = []
    rest: list[str] = []
    left = list(words)
    while left and left[0] != "--":
        word = left.pop(0)
        if word in WITH_VALUE:
            front += [word, *left[:1]]
            left = left[1:]
        elif word in ALONE or word.partition("=")[0] in WITH_VALUE:
            front.append(word)
        else:
            rest.append(word)
    return [*front, *rest, *left]


def open_mesh(given: Path | None) -> meshfile.Mesh:
    """The mesh meant; ``MeshctlError`` when that is not clear."""
    chosen = CHOSEN.get()
    given = given or chosen.mesh
    if chosen.contexts:
        if given is not None:
            raise MeshctlError("give either --mesh or --context, not both.", Exit.USAGE)
        from clustermesh.meshctl.kube import members

        mesh = members.mesh_of(chosen.contexts, chosen.kubeconfig, chosen.namespace)
    else:
        mesh = _completed(meshfile.load(mesh_path(given)))
    _tell(mesh)
    return mesh


def mesh_path(given: Path | None) -> Path:
    """The file of the mesh meant, where it is not a matter of contexts."""
    given = given or CHOSEN.get().mesh
    root = lab_root()
    labs = sorted(root.glob("*/mesh.yaml")) if root.is_dir() else []
    if given is None and not labs and os.geteuid() != 0 and root.is_dir():
        raise MeshctlError(f"only root may see the labs under {root}: sudo meshctl ...")
    return meshfile.find(given, labs)


def _completed(mesh: meshfile.Mesh) -> meshfile.Mesh:
    """With what the members' Kubernetes say; one that is silent stays as the file has it."""
    if not any(cluster.context for cluster in mesh.clusters):
        return mesh
    from clustermesh.meshctl.api import NoAnswer
    from clustermesh.meshctl.kube import members

    found = []
    for cluster in mesh.clusters:
        try:
            found.append(members.complete(cluster) if cluster.context else cluster)
        except NoAnswer as error:
            complain(str(error))
            found.append(cluster)
    return meshfile.Mesh(clusters=tuple(found), max_connected_clusters=mesh.max_connected_clusters)


def _tell(mesh: meshfile.Mesh) -> None:
    """Which context each name stands for, before anything is done there."""
    for cluster in mesh.clusters:
        if cluster.context:
            complain(f"{cluster.name} is context {cluster.context}, namespace {cluster.namespace}")
