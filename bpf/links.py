"""Attachments that outlive us: pinned links, updated in place, remade when their target is gone."""

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bpf import syscalls
from bpf.errors import AttachError
from bpf.pins import opened, pin

TCX_INGRESS: Final = 46
TCX_EGRESS: Final = 47

CGROUP_HOOKS: Final[dict[str, int]] = {
    "connect4": 10,
    "connect6": 11,
    "sendmsg4": 14,
    "sendmsg6": 15,
    "recvmsg4": 19,
    "recvmsg6": 20,
    "getpeername4": 29,
    "getpeername6": 30,
}


@dataclass(frozen=True, slots=True)
class Hook:
    """Where a program goes: `target` is what the kernel calls it, `handle` what linking takes."""

    path: Path
    attach_type: int
    target: int
    handle: int


def ensure_link(hook: Hook, program_fd: int) -> bool:
    """Links the program to the hook; whether anything had to change. AttachError when refused."""
    fd = opened(hook.path)
    try:
        if fd is not None:
            link = syscalls.link_info(fd)
            if (link.target, link.attach_type) == (hook.target, hook.attach_type):
                return _bring_up_to_date(fd, link, program_fd)
            hook.path.unlink()  # its device or control group is gone, or another one is wanted
        _make(hook, program_fd)
    except OSError as error:
        raise AttachError(
            f"cannot attach {hook.path.name}: {error.strerror}{_why(hook, error)}"
        ) from error
    finally:
        if fd is not None:
            os.close(fd)
    return True


def _why(hook: Hook, error: OSError) -> str:
    """What a refusal means where the kernel's word for it does not say."""
    if error.errno != errno.EPERM or hook.attach_type not in CGROUP_HOOKS.values():
        return ""
    return (
        "; another program may have this hook for itself: `bpftool cgroup tree` names it,"
        " it must be attached with the flag multi"
    )


def _bring_up_to_date(fd: int, link: syscalls.LinkInfo, program_fd: int) -> bool:
    if link.program_id == syscalls.program_info(program_fd).id:
        return False
    syscalls.link_update(fd, program_fd)
    return True


def _make(hook: Hook, program_fd: int) -> None:
    fd = syscalls.link_create(program_fd, hook.handle, hook.attach_type)
    try:
        pin(fd, hook.path)
    finally:
        os.close(fd)


def tcx_supported() -> bool:
    """TCX came with Linux 6.6."""
    release = os.uname().release.split(".")
    return (int(release[0]), int(release[1].split("-")[0])) >= (6, 6)
