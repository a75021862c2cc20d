"""A pod's volumes as folders, written as a kubelet writes them: all files change in one step."""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

Data = Mapping[str, bytes]
Read = Callable[[str, str], Data | None]
"""What the Secret or ConfigMap (kind, name) holds; None: there is none."""

CURRENT = "..data"


class NotYetError(Exception):
    """The pod has to wait for an object."""


def content(volume: Mapping[str, Any], read: Read) -> tuple[Data, int] | None:
    """Files and their mode; None: nothing that an object holds is mounted here."""
    if "projected" in volume:
        projected = volume["projected"]
        files: dict[str, bytes] = {}
        for source in projected["sources"]:
            files.update(_one(source, read) or {})
        return files, projected.get("defaultMode", 0o644)
    for kind in ("secret", "configMap"):
        if kind in volume:
            return _one(volume, read) or {}, volume[kind].get("defaultMode", 0o644)
    return None


def _one(source: Mapping[str, Any], read: Read) -> Data | None:
    kind, named = next((kind, source[kind]) for kind in ("secret", "configMap") if kind in source)
    name = named.get("secretName") or named["name"]
    held = read(kind, name)
    if held is None:
        if named.get("optional"):
            return None
        raise NotYetError(f"{kind} {name}")
    if "items" not in named:
        return held
    return {item["path"]: held[item["key"]] for item in named["items"]}


def write(folder: Path, files: Data, mode: int, group: int) -> bool:
    """Make the folder hold these files; False when it does already."""
    current = folder / CURRENT
    if current.exists() and {p.name: p.read_bytes() for p in current.iterdir()} == dict(files):
        return False
    before = current.readlink() if current.is_symlink() else None
    fresh = Path(tempfile.mkdtemp(prefix="..", dir=folder))
    os.chown(fresh, 0, group)
    fresh.chmod(0o750 if group else 0o755)
    for name, data in files.items():
        file = fresh / name
        file.write_bytes(data)
        os.chown(file, 0, group)
        file.chmod(mode)
    link = folder / "..data_tmp"
    link.symlink_to(fresh.name)
    link.rename(current)
    for name in files:
        with suppress(FileExistsError):
            (folder / name).symlink_to(f"{CURRENT}/{name}")
    for path in folder.iterdir():
        if not path.name.startswith("..") and path.name not in files:
            path.unlink()
    if before is not None:
        shutil.rmtree(folder / before)
    return True
