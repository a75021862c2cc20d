"""What a process has cost so far, and what maps of the kernel cost: for measurements."""

import json
import os
import subprocess
from pathlib import Path
from typing import Final

TICKS: Final = os.sysconf("SC_CLK_TCK")


class Spent:
    """CPU seconds and memory (MB, now and at its peak) of a process so far."""

    def __init__(self, pid: int) -> None:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        self.cpu = (int(fields[11]) + int(fields[12])) / TICKS
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        status = dict(line.split(":", 1) for line in lines)
        self.now, self.peak = (int(status[it].split()[0]) / 1024 for it in ("VmRSS", "VmHWM"))


def kernel_maps() -> dict[int, tuple[str, int]]:
    """Every BPF map of the machine: name and bytes, by id. Inner maps are maps, too."""
    shown = subprocess.run(
        ["bpftool", "-j", "map", "show"], check=True, capture_output=True, text=True
    ).stdout
    return {it["id"]: (it.get("name", ""), int(it["bytes_memlock"])) for it in json.loads(shown)}
