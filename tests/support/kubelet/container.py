"""Become a container: ``unshare --mount python container.py SPEC``.

Its root is this machine's, with what it writes kept in memory and forgotten; over it lie the
volumes, at the very paths that the pod's manifest names. Only the standard library is used.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
CARRIED = ("proc", "sys", "dev")


def mount(*arguments: str) -> None:
    subprocess.run(("mount", *arguments), check=True)


def within(root: Path, path: str) -> Path:
    """Where a path of the container is: its links lead to places in the container as well."""
    argv = ("chroot", str(root), "realpath", "--canonicalize-missing", path)
    found = subprocess.run(argv, check=True, capture_output=True, text=True)
    return root / found.stdout.strip().lstrip("/")


def made_root(spec: dict[str, Any]) -> Path:
    """The root with all that the container finds there, and read-only if it is to be."""
    scratch = Path(spec["scratch"])
    mount("-t", "tmpfs", "container", str(scratch))
    upper, work, root = (scratch / name for name in ("upper", "work", "root"))
    for folder in (upper, work, root):
        folder.mkdir()
    mount(
        "-t", "overlay", "container", "-o", f"lowerdir=/,upperdir={upper},workdir={work}", str(root)
    )
    for name in CARRIED:
        mount("--rbind", f"/{name}", str(root / name))
    (root / "root").chmod(0o755)  # whose Python this is, whoever runs it
    for path, (text, mode) in spec["files"].items():
        file = within(root, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_text(text)
        file.chmod(mode)
    mounts = [(within(root, target), source) for target, source in spec["mounts"]]
    for target, _ in mounts:
        target.mkdir(parents=True, exist_ok=True)
    if spec["read-only"]:
        mount("-o", "remount,ro", str(root))
    for target, source in mounts:
        mount("--rbind", source, str(target))
    return root


def main(path: str) -> None:
    spec = json.loads(Path(path).read_text())
    os.chroot(made_root(spec))
    os.chdir("/")
    libc = ctypes.CDLL(None)
    if spec["user"]:
        os.setgroups([spec["user"]])
        os.setgid(spec["user"])
        os.setuid(spec["user"])  # and the capabilities are gone
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.execvpe(spec["argv"][0], spec["argv"], spec["env"])  # noqa: S606  # a list, no shell


if __name__ == "__main__":
    main(sys.argv[1])
