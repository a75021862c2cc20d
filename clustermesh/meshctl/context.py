"""Which mesh a command is about: ``--mesh FILE``, MESHCTL_MESH, or the lab that is up."""

from pathlib import Path
from typing import Annotated

import typer

from clustermesh.lab.paths import lab_root
from clustermesh.meshctl import meshfile

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
    labs = sorted(lab_root().glob("*/mesh.yaml")) if lab_root().is_dir() else []
    return meshfile.load(meshfile.find(given, labs))
