"""What must be so before the agent touches the node; a refusal is a sentence with a way out."""

import ctypes
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Final

from agent.settings import CILIUM_PINS, PINS
from bpf import pins, syscalls
from clustermesh.process import Fault

BPF_FS: Final = 0xCAFE4A11
CGROUP2_FS: Final = 0x63677270
CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF = (1 << number for number in (12, 21, 38, 39))
CONNECT4: Final = 10  # BPF_CGROUP_INET4_CONNECT
CILIUM_PROGRAMS: Final = "cil_"
"""How the names of Cilium's programs begin."""
CILIUM_DEVICES: Final = ("cilium_host", "cilium_net", "cilium_vxlan", "cilium_geneve")
CILIUM_TRACES: Final = ("cilium", "tc/globals/cilium_ipcache", "tc/globals/cilium_ipcache_v2")
libc = ctypes.CDLL(None, use_errno=True)


def check(*, bpf_root: Path, cgroup: Path) -> None:
    """Rights, file systems, and that no Cilium agent owns this node; raises ``Fault``."""
    if os.geteuid() != 0:
        raise Fault("clustermesh-agent must run as root: it loads programs into the kernel")
    if lacking := lacking_rights(_capabilities()):
        raise Fault(
            f"clustermesh-agent has no right to {lacking};"
            " run it as root with all capabilities, in a container as a privileged one"
        )
    if _file_system(bpf_root) != BPF_FS:
        raise Fault(
            f"{bpf_root} is no BPF file system; run: mount -t bpf bpf {bpf_root},"
            " or name another with --bpf-root"
        )
    if _file_system(cgroup) != CGROUP2_FS:
        raise Fault(
            f"{cgroup} is no cgroup2 directory; name one with --cgroup-root"
            " (grep cgroup2 /proc/mounts shows where it is mounted)"
        )
    _no_cilium(bpf_root, cgroup)


def lacking_rights(capabilities: int) -> str:
    """What a process with these effective capabilities may not do, empty when it may all. [pure]"""
    loads = capabilities & CAP_SYS_ADMIN or (capabilities & CAP_BPF and capabilities & CAP_PERFMON)
    lacking = [] if loads else ["load programs into the kernel (CAP_SYS_ADMIN)"]
    if not capabilities & CAP_NET_ADMIN:
        lacking.append("change the node's network (CAP_NET_ADMIN)")
    return " and to ".join(lacking)


def _capabilities() -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return -1  # a kernel that does not tell: it will say no by itself


def _no_cilium(bpf_root: Path, cgroup: Path) -> None:
    devices = {name for _, name in socket.if_nameindex()} & set(CILIUM_DEVICES)
    present = [bpf_root / pin for pin in CILIUM_TRACES if (bpf_root / pin).exists()]
    ours = set(pins.shared(bpf_root / PINS, bpf_root / CILIUM_PINS)) if present else set()
    programs = set(_programs(cgroup))
    if devices or programs or set(present) - ours:
        foreign = (str(pin) for pin in present if pin not in ours)
        found = ", ".join([*sorted(devices), *sorted(programs), *foreign])
        raise Fault(
            f"a Cilium agent runs or ran on this node ({found}); it is a member of the mesh by"
            " itself: run clustermesh-agent elsewhere, or remove Cilium and what it left"
        )


def _programs(cgroup: Path) -> Iterator[str]:
    """Programs of Cilium that see the connections of this control group."""
    with suppress(OSError), _opened(cgroup) as folder:
        for number in syscalls.programs_at(folder, CONNECT4):
            with suppress(OSError), _closing(syscalls.program_by_id(number)) as program:
                name = syscalls.program_info(program).name
                if name.startswith(CILIUM_PROGRAMS):
                    yield f"program {name}"


def _opened(path: Path) -> AbstractContextManager[int]:
    return _closing(os.open(path, os.O_RDONLY))


@contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def cgroup_root(chosen: Path | None) -> Path:
    """The directory chosen, else where cgroup2 is mounted; raises ``Fault``."""
    if chosen is not None:
        return chosen
    for line in Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
        fields = line.split(" ")
        if len(fields) > 2 and fields[2] == "cgroup2":
            return Path(fields[1])
    raise Fault(
        "no cgroup2 file system is mounted, and services are served at its sockets;"
        " run: mount -t cgroup2 none /sys/fs/cgroup/unified, or boot with cgroup2"
    )


@contextmanager
def alone(state_dir: Path) -> Iterator[None]:
    """Nobody else uses this state directory meanwhile; raises ``Fault``."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        lock = (state_dir / "agent.lock").open("a+")
    except OSError as error:
        raise Fault(
            f"{state_dir} cannot be written ({error.strerror}); name another with --state-dir"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Fault(
                f"another clustermesh-agent uses {state_dir}; stop it,"
                " or give this one another --state-dir"
            ) from None
        yield


def _file_system(path: Path) -> int:
    """The file system's magic number (statfs(2)), 0 when there is no such path."""
    room = ctypes.create_string_buffer(256)
    if libc.statfs(os.fsencode(path), room) != 0:
        return 0
    return int.from_bytes(room.raw[: ctypes.sizeof(ctypes.c_long)], "little")
