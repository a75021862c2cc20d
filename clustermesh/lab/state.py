"""What a lab knows of itself: one JSON file, replaced in one step after every change."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum

import msgspec

from clustermesh.lab.errors import LabError
from clustermesh.lab.manifests import Pod
from clustermesh.lab.paths import Paths
from clustermesh.lab.processes import Process
from clustermesh.lab.topology import Topology
from clustermesh.pki import write_private


class Phase(StrEnum):
    """``building`` in a file that nobody holds the lock of: half built."""

    BUILDING = "building"
    UP = "up"


class State(msgspec.Struct, kw_only=True):
    """The lab as it is. ``ready`` is the time in seconds that each cluster took to be ready."""

    name: str
    topology: Topology
    phase: Phase = Phase.BUILDING
    cgroup: str = ""
    pods: dict[str, Pod] = {}
    processes: dict[str, Process] = {}
    ready: dict[str, float] = {}

    def save(self, paths: Paths) -> None:
        write_private(paths.state, msgspec.json.format(msgspec.json.encode(self), indent=1))


def load(paths: Paths) -> State | None:
    """The lab's state; None when there is none, or what is there cannot be read."""
    try:
        return msgspec.json.decode(paths.state.read_bytes(), type=State)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None


def running(paths: Paths) -> State:
    """The state of a lab that is up; ``LabError`` when it is not."""
    state = load(paths)
    if state is None:
        raise LabError(f"there is no lab {paths.lab!r}. Start one: {_up(paths)}")
    if state.phase is not Phase.UP:
        raise LabError(f"the lab {paths.lab!r} is only half built. Build it anew: {_up(paths)}")
    return state


@contextmanager
def locked(paths: Paths) -> Iterator[None]:
    """Keep others from building, changing or removing this lab meanwhile. The lock's file goes
    away with the lab.
    """
    descriptor = _lock(paths)
    try:
        yield
    finally:
        if not paths.top.exists():
            paths.lock.unlink(missing_ok=True)
            with suppress(OSError):
                paths.root.rmdir()
        os.close(descriptor)


def _lock(paths: Paths) -> int:
    while True:
        paths.root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise LabError(
                f"another meshctl is at work on the lab {paths.lab!r}; wait for it to end."
            ) from error
        if paths.lock.exists() and os.path.samestat(os.fstat(descriptor), paths.lock.stat()):
            return descriptor
        os.close(descriptor)  # its last holder removed it; take the one there is now


def _up(paths: Paths) -> str:
    named = "" if paths.lab == "lab" else f" --name {paths.lab}"
    return f"meshctl lab up{named}"
