"""What this kernel lacks for the data path, and which Linux has it: asked of the kernel.

A start with everything pinned asks nothing; the loader asks when the kernel has refused something.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bpf import syscalls
from bpf.errors import FeatureMissingError
from bpf.libbpf import library
from bpf.maps import MapKind
from bpf.specs import MMAPABLE

OLDEST_KERNEL: Final = (5, 18)
"""The release that has every feature below; distributions may have them in older ones."""

SCHED_CLS: Final = 3
CGROUP_SOCK_ADDR: Final = 18


@dataclass(frozen=True, slots=True)
class Feature:
    """Something the programs need, the first Linux that has it, and how to ask for it."""

    name: str
    since: tuple[int, int]
    present: Callable[[], bool]

    def __str__(self) -> str:
        return f"{self.name} (Linux {self.since[0]}.{self.since[1]})"


def _helper(program: int, number: int) -> Callable[[], bool]:
    return lambda: bool(library().libbpf_probe_bpf_helper(program, number, None) == 1)


def _map(kind: MapKind) -> Callable[[], bool]:
    return lambda: bool(library().libbpf_probe_bpf_map_type(int(kind), None) == 1)


def _shared_memory() -> bool:
    try:
        os.close(syscalls.map_create(MapKind.ARRAY, 4, 8, 1, MMAPABLE))
    except OSError:
        return False
    return True


FEATURES: Final[tuple[Feature, ...]] = (
    Feature("hash maps with least-recently-used eviction", (4, 10), _map(MapKind.LRU_HASH)),
    Feature("longest-prefix maps", (4, 11), _map(MapKind.LPM_TRIE)),
    Feature("hashes of maps", (4, 12), _map(MapKind.HASH_OF_MAPS)),
    Feature("maps in shared memory", (5, 5), _shared_memory),
    Feature("ring buffers", (5, 8), _map(MapKind.RING)),
    Feature(
        "network namespace cookies for socket programs", (5, 7), _helper(CGROUP_SOCK_ADDR, 122)
    ),
    Feature("loops in tc programs", (5, 17), _helper(SCHED_CLS, 181)),
    Feature("error codes from socket programs", (5, 18), _helper(CGROUP_SOCK_ADDR, 187)),
)


def missing(features: Sequence[Feature] = FEATURES) -> list[Feature]:
    """Those that the running kernel does not have. Needs the right to load programs."""
    return [feature for feature in features if not feature.present()]


def explain(lacking: Sequence[Feature], release: str) -> str:
    """One sentence, with the way out. [pure]"""
    newest = max(feature.since for feature in lacking)
    listed = ", ".join(map(str, lacking))
    return (
        f"the kernel {release} lacks {listed}: boot Linux {newest[0]}.{newest[1]} or newer, "
        "or leave this node out of the mesh"
    )


def require() -> None:
    """Raises FeatureMissingError with that sentence when anything is missing."""
    lacking = missing(FEATURES)
    if lacking:
        raise FeatureMissingError(explain(lacking, os.uname().release))
