"""Where maps, programs and links stay while we are not running: a folder on a BPF file system."""

import ctypes
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bpf import syscalls
from bpf.errors import BpfError


@dataclass(frozen=True, slots=True)
class Pins:
    """The folder of one node: maps/, programs/<version>/, links/, and clusters/ with the names of
    the ids that are in the maps."""

    root: Path

    @property
    def maps(self) -> Path:
        return self.root / "maps"

    @property
    def balancer(self) -> "Pins":
        """Another such folder inside this one, for what balances packets."""
        return Pins(self.root / "lb")

    @property
    def links(self) -> Path:
        return self.root / "links"

    @property
    def clusters(self) -> Path:
        return self.root / "clusters"

    def programs(self, version: str) -> Path:
        return self.root / "programs" / version

    def prepare(self) -> None:
        """Makes the folders. BpfError when this is no BPF file system or not ours to write."""
        if not on_bpffs(self.root):
            raise BpfError(
                f"{self.root} is not on a BPF file system: mount one with "
                f"`mount -t bpf bpf {self.root.parent}`, or choose another folder"
            )
        try:
            for folder in (self.maps, self.links, self.root / "programs"):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BpfError(f"cannot keep pins under {self.root}: {error.strerror}") from error

    def remove(self) -> None:
        """The folders and all that is in them; what is not ours, or a mount point, stays."""
        for folder in (self.links, self.root / "programs", self.maps, self.clusters):
            shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            self.root.rmdir()

    def versions(self) -> Iterator[str]:
        yield from (path.name for path in (self.root / "programs").iterdir())

    def forget_programs(self, version: str) -> None:
        """Links keep their programs alive; only the names go."""
        shutil.rmtree(self.programs(version), ignore_errors=True)


_libc: Final = ctypes.CDLL(None, use_errno=True)
_BPF_FS: Final = 0xCAFE4A11


def on_bpffs(path: Path) -> bool:
    """Whether the path, or the part of it that exists, is on a BPF file system."""
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    room = ctypes.create_string_buffer(256)  # struct statfs, whose first word is the kind
    if _libc.statfs(os.fsencode(existing), room) != 0:
        return False
    return int.from_bytes(room.raw[:4], "little") == _BPF_FS


def opened(path: Path) -> int | None:
    """The pinned object's descriptor, None when nothing is pinned there."""
    try:
        return syscalls.open_pin(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BpfError(f"cannot open {path}: {error.strerror}") from error


def pin(fd: int, path: Path) -> None:
    """Replaces whatever had the name."""
    with suppress(FileNotFoundError):
        path.unlink()
    try:
        syscalls.pin(fd, path)
    except OSError as error:
        raise BpfError(f"cannot pin {path}: {error.strerror}") from error


def remove_link(path: Path) -> None:
    """Detaches at once, not when the kernel gets round to it; an absent or dead link is fine."""
    fd = opened(path)
    if fd is None:
        return
    try:
        with suppress(OSError):  # its device or control group is gone already
            syscalls.link_detach(fd)
    finally:
        os.close(fd)
    path.unlink(missing_ok=True)


SHARED: Final = "cilium_"
"""Maps with this prefix have a layout that foreign tools know; only these are shared."""


def share(maps: Mapping[str, int], folder: Path) -> None:
    """Pins maps, by name and descriptor, where foreign tools look for them. BpfError when
    something that is not ours has one of the names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, fd in maps.items():
        if not name.startswith(SHARED):
            continue
        there = _map_at(folder / name)
        if there is None:
            pin(fd, folder / name)
        elif there != syscalls.map_info(fd).id:
            raise BpfError(
                f"{folder / name} is another program's map; ours is not pinned there:"
                " remove it, or leave out --cilium-pins"
            )


def shared(root: Path, folder: Path) -> list[Path]:
    """Pins in a folder that name a map of ours: of the one whose pins are below `root`."""
    pins = Pins(root)
    names = [path.name for path in sorted(folder.glob(f"{SHARED}*"))]
    ours = (where.maps / name for where in (pins, pins.balancer) for name in names)
    found = ((path, _map_at(path)) for path in ours)
    return [
        folder / path.name
        for path, number in found
        if number is not None and number == _map_at(folder / path.name)
    ]


def unshare(root: Path, folder: Path) -> list[Path]:
    """Removes those pins and says which they were; another program's stay."""
    gone = shared(root, folder)
    for path in gone:
        path.unlink()
    return gone


def _map_at(path: Path) -> int | None:
    """The number of the map that is pinned there; 0 when it is no map that can be opened."""
    try:
        fd = syscalls.open_pin(path)
    except FileNotFoundError:
        return None
    except OSError:
        return 0
    try:
        return syscalls.map_info(fd).id
    finally:
        os.close(fd)


def cleanup(root: Path) -> None:
    """Detaches the linked programs and removes every pin of ours below `root`. Twice is fine.

    Filters on a device (clsact) go with the device: delete that, or call detach_overlay first.
    Shared pins go first, by `unshare`: without ours nobody can tell whose they are.
    """
    pins = Pins(root)
    if pins.balancer.root.is_dir():
        cleanup(pins.balancer.root)
    if pins.links.is_dir():
        for path in pins.links.iterdir():
            remove_link(path)
    pins.remove()
