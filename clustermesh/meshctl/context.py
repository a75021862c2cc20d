"""Which mesh a command is about: ``--mesh FILE``, MESHCTL_MESH, or the lab that is up."""

import os
from pathlib import Path
from typing import Annotated

import typer

from clustermesh.lab.paths import lab_root
from clustermesh.meshctl import meshfile
from clustermesh.meshctl.errors import MeshctlError

MeshOption = Annotated[
    Path | None,
    typer.Option(
        "--mesh",
        help="Mesh file; else the one MESHCTL_MESH names; else that of the lab that is up.",
        show_default=False,
    ),
]
NodeOption = Annotated[
    str, typer.Option("--node", help="Only this node, as CLUSTER/NODE.", show_default=False)
]


def open_mesh(given: Path | None) -> meshfile.Mesh:
    """The mesh meant; ``MeshctlError`` when that is not clear."""
    return meshfile.load(mesh_path(given))


def mesh_path(given: Path | None) -> Path:
    """The file of the mesh meant."""
    root = lab_root()
    labs = sorted(root.glob("*/mesh.yaml")) if root.is_dir() else []
    if given is None and not labs and os.geteuid() != 0 and root.is_dir():
        raise MeshctlError(f"only root may see the labs under {root}: sudo meshctl ...")
    return meshfile.find(given, labs)
