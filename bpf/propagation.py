"""A map of our own that no program reads: the newest propagation probe of each cluster."""

from pathlib import Path
from struct import Struct
from typing import Final

from bpf import syscalls
from bpf.kernel_maps import KernelMap
from bpf.maps import MapKind
from bpf.pins import opened, pin

NAME: Final = "cm_propagation"
ROOM: Final = 512
_KEY: Final = Struct("=I")
_VALUE: Final = Struct("=QQQ")
KEY_SIZE: Final = _KEY.size
VALUE_SIZE: Final = _VALUE.size


def open_map(folder: Path) -> KernelMap:
    """The map pinned in the folder, made when there is none. Raises ``BpfError`` or ``OSError``."""
    path = folder / NAME
    fd = opened(path)
    if fd is not None:
        found = KernelMap(fd, NAME)
        if (found.key_size, found.value_size) == (KEY_SIZE, VALUE_SIZE):
            return found
        found.close()
    fd = syscalls.map_create(MapKind.HASH, KEY_SIZE, VALUE_SIZE, ROOM, 0, NAME)
    pin(fd, path)
    return KernelMap(fd, NAME)


def pack_key(cluster_id: int) -> bytes:
    """By cluster id."""
    return _KEY.pack(cluster_id)


def pack_value(sent: int, written: int, number: int) -> bytes:
    """When it was sent and when it was written here, in Unix nanoseconds, and its number."""
    return _VALUE.pack(sent, written, number)


def unpack(key: bytes, value: bytes) -> tuple[int, int, int, int]:
    """Cluster id, sent, written, number."""
    return (*_KEY.unpack(key), *_VALUE.unpack(value))
