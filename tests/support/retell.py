"""Runs every command of a transcript anew and writes what they print now into it.

    python3 -m tests.support.retell docs/tour.md

Commands are the lines that begin with ``$`` inside fences. Progress on standard error is left out.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from string import Template

FENCE = "```"
KEPT = re.compile(r"^export (\w+)=(\S+)$")
"""A command that is for those after it."""


def retold(text: str) -> Iterator[str]:
    """The lines of the transcript, with fresh answers."""
    inside = False
    env = {**os.environ, "PWD": str(Path.cwd())}
    env.pop("MESHCTL_MESH", None)
    for line in text.splitlines():
        if line.startswith(FENCE):
            inside = not inside
        if not inside or line.startswith(FENCE):
            yield line
        elif line.startswith("$ "):
            yield line
            yield from answer(line.removeprefix("$ "), env)


def answer(command: str, env: dict[str, str]) -> Iterator[str]:
    """What a shell shows, and how it ends."""
    if kept := KEPT.match(command):
        env[kept[1]] = Template(kept[2]).safe_substitute(env)
        return
    done = subprocess.run(  # noqa: S602  # a transcript of a shell
        command, shell=True, env=env, capture_output=True, text=True, executable="/bin/bash"
    )
    yield from (line.rstrip() for line in done.stdout.splitlines())
    yield from (line for line in done.stderr.splitlines() if line.startswith("meshctl: "))
    if done.returncode:
        yield f"(exit code {done.returncode})"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text("\n".join(retold(path.read_text())) + "\n")
