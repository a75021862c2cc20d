"""Remove a lab, whole or half built: everything is found by the lab's name, nothing else is."""

import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clustermesh.lab import host, processes
from clustermesh.lab.errors import LabError
from clustermesh.lab.paths import Paths
from clustermesh.lab.processes import Process
from clustermesh.lab.state import load

Report = Callable[[str], None]
END_TIMEOUT = 10.0
POLITE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def remains(paths: Paths) -> list[str]:
    """What there is of a lab, in words; empty when there is nothing."""
    found = []
    if _processes(paths):
        found.append(f"{len(_processes(paths))} processes")
    if namespaces := host.netns_named(paths.prefix):
        found.append(f"{len(namespaces)} network namespaces")
    if mounts := host.mounts_below(paths.top):
        found.append(f"{len(mounts)} mounts")
    if (cgroup := _cgroup(paths)) is not None:
        found.append(f"the cgroup {cgroup}")
    if paths.top.exists():
        found.append(f"the directory {paths.top}")
    return found


def tear_down(paths: Paths, report: Report) -> None:
    """Remove all of it. May be repeated, and may be interrupted and repeated."""
    report("ending its processes")
    _end(paths)
    report("removing its network namespaces")
    for netns in host.netns_named(paths.prefix):
        host.delete_netns(netns)
    report("removing its mounts, cgroups and files")
    for mount in host.mounts_below(paths.top):
        host.unmount(mount)
    _end(paths)  # one that was being started may have come meanwhile
    if (cgroup := _cgroup(paths)) is not None:
        host.delete_cgroups(cgroup)
    shutil.rmtree(paths.top, ignore_errors=True)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let neither Ctrl-C nor a polite signal stop the block."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in POLITE}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _processes(paths: Paths) -> list[Process]:
    """Those recorded that still run, and whatever else runs in the lab's cgroups."""
    state = load(paths)
    found = {p.pid: p for p in (state.processes.values() if state else ()) if processes.alive(p)}
    if (cgroup := _cgroup(paths)) is not None:
        for pid in host.processes_below(cgroup):
            if pid not in found and (process := processes.of_pid(pid)) is not None:
                found[pid] = process
    return list(found.values())


def _end(paths: Paths) -> None:
    running = _processes(paths)
    for process in running:
        processes.send(process, signal.SIGKILL)
    if left := processes.wait_gone(running, END_TIMEOUT):
        pids = ", ".join(str(process.pid) for process in left)
        raise LabError(f"processes {pids} do not end; look at them with ps, then try again.")


def _cgroup(paths: Paths) -> Path | None:
    with suppress(LabError):
        cgroup = paths.cgroup(host.cgroup_mount())
        return cgroup if cgroup.is_dir() else None
    return None
