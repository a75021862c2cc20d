"""Become a program inside a network namespace and a cgroup: ``enter.py NETNS CGROUP PROGRAM ...``.

Unlike ``ip netns exec`` this leaves mounts alone, so that pinned eBPF objects stay visible, and
the cgroup is joined before the program can open a socket. ``-`` stands for "stay where I am".
Only the standard library is used, so that it starts in milliseconds (``python -I -S``).
"""

import ctypes
import os
import sys

CLONE_NEWNET = 0x40000000


def enter(netns: str, cgroup: str) -> None:
    """Move the calling process; raises ``OSError``."""
    if cgroup != "-":
        descriptor = os.open(f"{cgroup}/cgroup.procs", os.O_WRONLY)
        os.write(descriptor, b"0")
        os.close(descriptor)
    if netns != "-":
        descriptor = os.open(f"/run/netns/{netns}", os.O_RDONLY | os.O_CLOEXEC)
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), netns)
        os.close(descriptor)


def main(arguments: list[str]) -> None:
    netns, cgroup, *program = arguments
    try:
        enter(netns, cgroup)
        os.chdir("/")
        os.execvp(program[0], program)  # noqa: S606  # a list, no shell: becoming it is the point
    except OSError as error:
        sys.exit(f"cannot start {program[0]}: {error.strerror}: {error.filename or netns}")


if __name__ == "__main__":
    main(sys.argv[1:])
