"""What a lab must not touch: the host's network, cgroup root and bpffs, read by foreign tools."""

import re
import subprocess
from pathlib import Path

NOTHING: dict[str, list[str]] = {"namespaces": [], "cgroups": [], "mounts": [], "files": []}
"""What a lab that was removed leaves behind (`remains`)."""


def _output(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def cgroup_root() -> Path:
    """Where cgroup2 is mounted on this machine."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    raise AssertionError("this machine has no cgroup2 mount")


def picture() -> dict[str, str]:
    """Everything of the host that could have changed, as text."""
    bpffs = Path("/sys/fs/bpf")
    return {
        "links": _output("ip", "-o", "link", "show").replace(" state UNKNOWN", ""),
        "addresses": _output("ip", "-o", "address", "show"),
        "routes": _output("ip", "route", "show", "table", "all"),
        "routes of IPv6": _output("ip", "-6", "route", "show", "table", "all"),
        "rules": _output("ip", "rule", "show"),
        "nftables": _output("nft", "list", "ruleset"),
        "programs on the cgroup root": _output("bpftool", "cgroup", "show", str(cgroup_root())),
        "bpffs": "\n".join(sorted(str(path) for path in bpffs.rglob("*"))),
    }


def remains(lab: str) -> dict[str, list[str]]:
    """What the lab of that name has made and must remove."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    made = {
        "namespaces": _output("ip", "netns", "list").splitlines(),
        "cgroups": [path.name for path in cgroup_root().iterdir()],
        "mounts": mounts,
        "files": [str(path) for path in Path("/run/clustermesh").glob("*")],
    }
    ours = re.compile(rf"cm-{lab}(-|$)|/run/clustermesh/{lab}(/|$)")
    return {what: [name for name in names if ours.search(name)] for what, names in made.items()}
