"""``meshctl sysdump``: everything from everywhere, in one archive that may be handed on."""

import time
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from clustermesh.errors import MeshError
from clustermesh.meshctl.context import MeshOption, mesh_path, open_mesh
from clustermesh.meshctl.errors import MeshctlError
from clustermesh.meshctl.output import Format, Output, Progress, complain, say, show_json
from clustermesh.meshctl.sysdump import collect
from clustermesh.meshctl.sysdump.archive import Archive, Part
from clustermesh.version import VERSION

FORMAT: Final = 1


class Index(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """``index.json``: every part, and why some are not there. ``partial``: not all is."""

    format: int
    meshctl: str
    taken: float
    partial: bool
    parts: tuple[Part, ...]


class Dumped(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """Where it is."""

    file: str
    size: int
    partial: bool
    parts: tuple[Part, ...]


def sysdump(
    mesh: MeshOption = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            metavar="FILE",
            help="Archive to write; default: a new one here.",
            show_default=False,
        ),
    ] = None,
    logs: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR", help="Folder with *.log files; in a lab: its own.", show_default=False
        ),
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Collect everything into one archive, without secrets.

    Statuses, maps, etcd keys, metrics, logs and versions of all clusters and nodes. Private
    keys, tokens and passwords are left out. What cannot be had is named in index.json with the
    reason; the archive is written anyway. It is readable by its owner only.
    """
    opened = open_mesh(mesh)
    name = f"clustermesh-sysdump-{time.strftime('%Y%m%d-%H%M%S')}.tar.gz"
    path = file or Path(name)
    folders = tuple(logs) if logs else default_logs(mesh)
    try:
        kept = Archive(path)
    except FileExistsError:
        raise MeshctlError(f"{path} is there already: give another name with --file.") from None
    with kept, Progress() as progress:
        for place, content, why in collect.everything(opened, folders):
            progress("/".join(place[:2]))
            if content is None:
                kept.miss(place, why)
            else:
                kept.add(place, content)
        kept.close_with(index(kept.parts))
    done = Dumped(
        file=str(path),
        size=path.stat().st_size,
        partial=partial(kept.parts),
        parts=tuple(kept.parts),
    )
    if output is Format.JSON:
        show_json(done)
        return
    say(f"{done.file}: {len(done.parts)} parts, {sized(done.size)}")
    for part in done.parts:
        if part.missing:
            complain(f"missing {part.name}: {part.missing}")
        elif part.cut:
            complain(f"cut {part.name}: {part.cut} bytes are left out")


def sized(number: int) -> str:
    """``47 kB``, ``3.1 MB``."""
    return f"{number / 1e3:.0f} kB" if number < 1e6 else f"{number / 1e6:.1f} MB"


def index(parts: list[Part]) -> bytes:
    """The table of all parts."""
    told = Index(
        format=FORMAT,
        meshctl=VERSION,
        taken=time.time(),
        partial=partial(parts),
        parts=tuple(parts),
    )
    return msgspec.json.format(msgspec.json.encode(told), indent=2)


def partial(parts: list[Part]) -> bool:
    """Whether something is missing or cut."""
    return any(part.missing or part.cut for part in parts)


def default_logs(mesh: Path | None) -> tuple[Path, ...]:
    """The folder of the lab whose mesh file it is; none where the mesh is in no file."""
    try:
        top = mesh_path(mesh).parent / "clusters"
    except MeshError:
        return ()
    return (top,) if top.is_dir() else ()
