"""Processes the lab starts: recorded so that anyone can start exactly the same again.

Nobody restarts them: what was killed stays dead until somebody asks. A process is known by its
pid and the time it started, so that a pid that now belongs to somebody else is left alone.
"""

import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from clustermesh.lab import enter

LAUNCHER = (sys.executable, "-I", "-S", enter.__file__)
POLL = 0.01
LONGEST_MESSAGE = 400
USUAL_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)
SETTINGS_VARIABLES = ("CLUSTERMESH_", "ETCD_")


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """One process. ``argv`` is the whole command line, which works from any shell of this machine;
    ``started`` is field 22 of /proc/PID/stat, in clock ticks since boot.
    """

    target: str
    pid: int
    started: int
    argv: tuple[str, ...]
    log: str


def command(netns: str, cgroup: Path, program: Sequence[str]) -> tuple[str, ...]:
    """The command line that runs a program in a namespace and a cgroup."""
    return (*LAUNCHER, netns, str(cgroup), *program)


def start(target: str, argv: Sequence[str], log: Path) -> Process:
    """Start it in a session of its own, with its output appended to a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    pid = os.posix_spawnp(
        argv[0],
        list(argv),
        environment(os.environ),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigdef=USUAL_SIGNALS,
    )
    return Process(target=target, pid=pid, started=_started(pid), argv=tuple(argv), log=str(log))


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Ours, without the variables by which our programs and etcd take settings: the command line
    alone must say what a process does.
    """
    return {k: v for k, v in inherited.items() if not k.startswith(SETTINGS_VARIABLES)}


def alive(process: Process) -> bool:
    """Whether it runs (a zombie does not)."""
    with suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)
    state, started = _stat(process.pid)
    return state not in ("", "Z", "X") and started == process.started


def send(process: Process, number: signal.Signals) -> bool:
    """Send a signal to this very process and its group (under ``strace`` there are two); False
    when it is gone.
    """
    if not alive(process):
        return False
    try:
        leads = os.getpgid(process.pid) == process.pid
        os.kill(-process.pid if leads else process.pid, number)
    except ProcessLookupError:
        return False
    return True


def wait_gone(processes: Iterable[Process], timeout: float) -> list[Process]:
    """Wait until they have ended; those that are still there when the time is over."""
    deadline = time.monotonic() + timeout
    left = [process for process in processes if alive(process)]
    while left and time.monotonic() < deadline:
        time.sleep(POLL)
        left = [process for process in left if alive(process)]
    return left


def of_pid(pid: int) -> Process | None:
    """A process found by its pid, as a record that can be signalled; None when it is gone."""
    state, started = _stat(pid)
    if not state:
        return None
    return Process(target=f"pid {pid}", pid=pid, started=started, argv=(), log="")


def last_line(log: str) -> str:
    """The end of a log, for an error message: of a structured record only what it says."""
    with suppress(OSError):
        lines = Path(log).read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return _told(last)[:LONGEST_MESSAGE]
    return ""


def _told(line: str) -> str:
    try:
        record = msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError:
        return line
    words = [str(record[key]) for key in ("msg", "event", "error") if record.get(key)]
    return ": ".join(words) or line


def _started(pid: int) -> int:
    return _stat(pid)[1]


def _stat(pid: int) -> tuple[str, int]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", 0
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[19])
