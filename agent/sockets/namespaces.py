"""Network namespaces of the processes below a cgroup: where the sockets are that we balance.

The socket programs serve the processes below the agent's cgroup and no others, so the namespaces of
those processes are all there is to look at. Not reached is a socket in a namespace that has no
process left below the cgroup (one handed to a process elsewhere), and any pod's at all when the
agent does not see the node's processes (it needs the host's process namespace: ``hostPID``).
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

CLONE_NEWNET: Final = 0x40000000
PROC: Final = Path("/proc")

_libc = ctypes.CDLL(None, use_errno=True)


def processes(cgroup: Path) -> Iterator[int]:
    """Every process in the cgroup and below; what ends meanwhile is left out."""
    for folder, _, _ in os.walk(cgroup):
        with suppress(OSError):
            for line in Path(folder, "cgroup.procs").read_text(encoding="ascii").split():
                yield int(line)


def namespaces(cgroup: Path, *, most: int) -> tuple[dict[int, int], bool]:
    """Inode of each namespace to a process in it, at most so many; whether there are more."""
    found: dict[int, int] = {}
    for pid in processes(cgroup):
        with suppress(OSError):
            inode = (PROC / str(pid) / "ns/net").stat().st_ino
            if inode not in found and len(found) >= most:
                return found, True
            found.setdefault(inode, pid)
    return found, False


@contextmanager
def inside(pid: int) -> Iterator[None]:
    """This thread is in the process's network namespace during the block. Raises ``OSError``."""
    home = os.open(PROC / "thread-self/ns/net", os.O_RDONLY)
    try:
        there = os.open(PROC / str(pid) / "ns/net", os.O_RDONLY)
        try:
            _enter(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _enter(home)
    finally:
        os.close(home)


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
