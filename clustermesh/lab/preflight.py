"""Whether this machine can carry a lab; each refusal says the way out."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from bpf import features
from bpf.errors import FeatureMissingError
from clustermesh.lab import host
from clustermesh.lab.errors import LabError

PROGRAMS: Mapping[str, str] = {
    "etcd": "etcd-server",
    "ip": "iproute2",
    "mount": "mount",
    "umount": "mount",
    "unshare": "util-linux",
}
LINKS: Mapping[str, str] = {
    "bridge": "link add b0 type bridge",
    "veth": "link add v0 type veth peer name v1",
    "vxlan": "link add x0 type vxlan external dstport 8472 nolearning",
}


def check() -> Path:
    """Where cgroup2 is mounted, when all is well; ``LabError`` otherwise."""
    if os.geteuid() != 0:
        raise LabError(
            "the lab needs root, for network namespaces, cgroups and eBPF."
            " Run it again as root: sudo meshctl lab up"
        )
    _programs()
    _root()
    _kernel()
    return host.cgroup_mount()


def _programs() -> None:
    missing = sorted(name for name in PROGRAMS if shutil.which(name) is None)
    if missing:
        packages = " ".join(sorted({PROGRAMS[name] for name in missing}))
        raise LabError(
            f"{', '.join(missing)} cannot be found on PATH."
            f" On Debian: apt-get install {packages} (or run ./dev setup)"
        )


def _root() -> None:
    """``ip netns exec`` makes ``/`` a slave mount, which only a mount point can be."""
    points = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    if "/" not in points:
        raise LabError(
            "/ is no mount point here (a plain chroot?), and network namespaces are entered by way"
            " of one. Before the chroot: mount --bind DIRECTORY DIRECTORY"
        )


def _kernel() -> None:
    known = Path("/proc/filesystems").read_text(encoding="ascii").split()
    if "bpf" not in known:
        raise LabError(
            "this kernel has no bpf file system: it was built without CONFIG_BPF_SYSCALL."
            " Use a distribution kernel."
        )
    _features()
    for kind, command in LINKS.items():
        try:
            host.run("unshare", "--net", "ip", *command.split())
        except LabError as error:
            raise LabError(
                f"this kernel cannot make {kind} links ({str(error).rstrip('.')})."
                f" Try: modprobe {kind}"
            ) from error


def _features() -> None:
    """What ``bpf.features`` needs: asked of the kernel, whatever release it calls itself."""
    try:
        features.require()
    except FeatureMissingError as error:
        raise LabError(str(error)) from error
