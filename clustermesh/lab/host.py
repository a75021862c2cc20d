"""The kernel's side of the lab: namespaces, links, mounts and cgroups, each removable by name."""

import ctypes
import errno
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from clustermesh.lab.enter import CLONE_NEWNET
from clustermesh.lab.errors import LabError

NETNS = Path("/run/netns")
COMMAND_TIMEOUT = 30.0
EMPTY_TIMEOUT = 10.0
POLL = 0.01


def run(*command: str, text: str | None = None) -> str:
    """Run a program to its end and give what it printed; ``LabError`` says how it failed."""
    try:
        done = subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT,
            check=False,
        )
    except FileNotFoundError as error:
        raise LabError(f"{command[0]} is not installed.") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{' '.join(command)} did not end in {COMMAND_TIMEOUT:.0f} s.") from error
    if done.returncode != 0:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise LabError(f"{' '.join(command)} failed: {said}.")
    return done.stdout


def ip(netns: str, commands: Sequence[str]) -> None:
    """Run ``ip`` commands inside a namespace, one after the other; the first failure ends it."""
    if commands:
        six = [it for it in commands if it.startswith("rule ") and ":" in it]  # has to be told
        for family, lines in (((), [it for it in commands if it not in six]), (("-6",), six)):
            if lines:
                text = "\n".join(lines) + "\n"
                run("ip", *family, "-n", netns, "-batch", "-", text=text)


def add_netns(name: str) -> None:
    run("ip", "netns", "add", name)
    ip(name, ["link set lo up"])


def netns_named(prefix: str) -> list[str]:
    with suppress(FileNotFoundError):
        return sorted(path.name for path in NETNS.iterdir() if path.name.startswith(prefix))
    return []


def delete_netns(name: str) -> None:
    """Also the links inside; removing what is not there succeeds."""
    if (NETNS / name).exists():
        run("ip", "netns", "delete", name)


@contextmanager
def inside(netns: str) -> Iterator[None]:
    """Run the block (in this thread) with the sockets and /proc/sys/net of a namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
    there = os.open(NETNS / netns, os.O_RDONLY)
    try:
        if libc.setns(there, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), netns)
        try:
            yield
        finally:
            libc.setns(home, CLONE_NEWNET)
    finally:
        os.close(there)
        os.close(home)


def set_sysctls(netns: str, values: dict[str, str]) -> None:
    """Set ``net/...`` values of a namespace; one the kernel lacks is left out."""
    with inside(netns):
        for name, value in values.items():
            with suppress(FileNotFoundError):
                Path("/proc/sys/net", name).write_text(value, encoding="ascii")


def mounted(point: Path) -> str:
    """The type of file system mounted at a path; empty when there is none."""
    found = ""
    for kind, where in _mounts():
        if where == point:
            found = kind
    return found


def mounts_below(top: Path) -> list[Path]:
    """Mount points at and below a path, the innermost first."""
    points = {where for _, where in _mounts() if where == top or top in where.parents}
    return sorted(points, key=lambda point: len(point.parts), reverse=True)


def mount(kind: str, point: Path, *, options: str = "rw") -> None:
    point.mkdir(parents=True, exist_ok=True)
    run("mount", "-t", kind, "-o", options, f"cm-{kind}", str(point))


def unmount(point: Path) -> None:
    """Detach now, even while something is open below; removing what is not there succeeds."""
    while mounted(point):
        run("umount", "--lazy", str(point))


def cgroup_mount() -> Path:
    """Where this machine has its cgroup2 hierarchy (design: sockets are balanced per cgroup)."""
    for kind, where in _mounts():
        if kind == "cgroup2":
            return where
    raise LabError(
        "no cgroup2 file system is mounted; mount one: "
        "mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified"
    )


def processes_below(cgroup: Path) -> list[int]:
    """Every process in a cgroup or one of its children."""
    found: list[int] = []
    for file in cgroup.rglob("cgroup.procs") if cgroup.is_dir() else ():
        with suppress(OSError):
            found += [int(pid) for pid in file.read_text(encoding="ascii").split()]
    return found


def delete_cgroups(top: Path) -> None:
    """A cgroup and its children, innermost first. Their processes must have been killed: the
    kernel counts them for a moment after they can no longer be seen.
    """
    below = sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True)
    for path in [*below, top]:
        _delete_cgroup(path)


def _delete_cgroup(path: Path) -> None:
    deadline = time.monotonic() + EMPTY_TIMEOUT
    while True:
        try:
            path.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            if time.monotonic() > deadline:
                pids = ", ".join(map(str, processes_below(path)))
                raise LabError(f"the cgroup {path} still has processes: {pids}.") from error
            time.sleep(POLL)
        else:
            return


def _mounts() -> Iterator[tuple[str, Path]]:
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, where, kind, *_ = line.split(" ")
        yield kind, Path(where.encode().decode("unicode_escape"))
