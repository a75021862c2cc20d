"""A command line before another, under which bpf(2) makes no maps: as a kernel without the kind."""

import ctypes
import os
import struct
import sys
from pathlib import Path
from typing import Final

REFUSES_MAPS: Final = (sys.executable, "-I", "-S", str(Path(__file__)))

_PR_SET_SECCOMP, _FILTER = 22, 2
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _FIRST = 0, 16
"""Offsets in struct seccomp_data: of the system call's number, of its first argument."""
_BPF: Final = {"x86_64": 321, "aarch64": 280}
_MAP_CREATE, _EINVAL = 0, 22


def refuse_maps() -> None:
    """For this process and all that it becomes."""
    steps = (
        (_LOAD, 0, 0, _NUMBER),
        (_EQUAL, 0, 3, _BPF[os.uname().machine]),
        (_LOAD, 0, 0, _FIRST),
        (_EQUAL, 0, 1, _MAP_CREATE),
        (_RETURN, 0, 0, _ERRNO | _EINVAL),
        (_RETURN, 0, 0, _ALLOW),
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = struct.pack("HL", len(steps), ctypes.addressof(code))
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_SECCOMP, _FILTER, program, 0, 0) != 0:
        sys.exit(os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    refuse_maps()
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606  # a list, no shell
