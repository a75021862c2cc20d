"""What must be so before the agent touches the node; a refusal is a sentence with a way out."""

import ctypes
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from agent.settings import CILIUM_PINS, PINS
from bpf import pins
from clustermesh.process import Fault

BPF_FS: Final = 0xCAFE4A11
CGROUP2_FS: Final = 0x63677270
CILIUM_DEVICES: Final = ("cilium_host", "cilium_net", "cilium_vxlan", "cilium_geneve")
CILIUM_TRACES: Final = ("cilium", "tc/globals/cilium_ipcache", "tc/globals/cilium_ipcache_v2")
libc = ctypes.CDLL(None, use_errno=True)


def check(*, bpf_root: Path, cgroup: Path) -> None:
    """Rights, file systems, and that no Cilium agent owns this node; raises ``Fault``."""
    if os.geteuid() != 0:
        raise Fault("clustermesh-agent must run as root: it loads programs into the kernel")
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
    _no_cilium(bpf_root)


def _no_cilium(bpf_root: Path) -> None:
    devices = {name for _, name in socket.if_nameindex()} & set(CILIUM_DEVICES)
    present = [bpf_root / pin for pin in CILIUM_TRACES if (bpf_root / pin).exists()]
    ours = set(pins.shared(bpf_root / PINS, bpf_root / CILIUM_PINS)) if present else set()
    if devices or set(present) - ours:
        found = ", ".join([*sorted(devices), *(str(pin) for pin in present if pin not in ours)])
        raise Fault(
            f"a Cilium agent runs or ran on this node ({found}); it is a member of the mesh by"
            " itself: run clustermesh-agent elsewhere, or remove Cilium and what it left"
        )


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
