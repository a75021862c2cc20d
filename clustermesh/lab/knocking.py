"""Try connections from inside a pod of the lab, through its node's data path."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from clustermesh.findings import Knocked
from clustermesh.lab import operate
from clustermesh.lab.errors import LabError
from clustermesh.lab.paths import Paths
from clustermesh.lab.processes import command
from clustermesh.lab.state import running

PROGRAM: Final = (sys.executable, "-P", "-m", "clustermesh.knocking")
PATIENCE: Final = 60.0  # seconds


def first_pod(paths: Paths, cluster: str, node: str) -> str:
    """A pod of the node; empty when it has none. Raises ``LabError``."""
    pods = running(paths).pods.values()
    names = (pod.name for pod in pods if (pod.cluster, pod.node_name) == (cluster, node))
    return min(names, default="")


def knock(paths: Paths, cluster: str, pod: str, targets: Sequence[str]) -> list[Knocked]:
    """As an agent's POST /v1/knock. Raises ``LabError``."""
    netns, cgroup = operate.location(paths, f"{cluster}/{pod}")
    argv = command(netns, Path(cgroup), [*PROGRAM, *targets])
    try:
        done = subprocess.run(argv, capture_output=True, check=True, timeout=PATIENCE)
        return msgspec.json.decode(done.stdout, type=list[Knocked])
    except subprocess.TimeoutExpired:
        raise LabError(f"{cluster}/{pod} does not come back within {PATIENCE:g} s.") from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines()
        raise LabError(f"{cluster}/{pod}: {said[-1] if said else 'no answer'}.") from None
