"""Put questions to echo servers from inside a pod of the lab."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from clustermesh.lab import ask, operate
from clustermesh.lab.errors import LabError
from clustermesh.lab.paths import Paths
from clustermesh.lab.processes import command

PYTHON = (sys.executable, "-I", "-S", ask.__file__)
GRACE = 30.0


class Answers(msgspec.Struct, frozen=True):
    """What ``ask.py`` printed: answers per ``cluster/pod``, the client's addresses as the servers
    saw them, failures as text, seconds it took, and the Unix time of its end.
    """

    pods: dict[str, int]
    peers: tuple[str, ...]
    failures: tuple[str, ...]
    seconds: float
    ended: float

    def clusters(self) -> dict[str, int]:
        """Answers per cluster."""
        counts: Counter[str] = Counter()
        for pod, count in self.pods.items():
            counts[pod.partition("/")[0]] += count
        return dict(sorted(counts.items()))


def questions(paths: Paths, pod: str, address: str, port: int, *options: str) -> Answers:
    """Ask from ``CLUSTER/POD``; options are those of ``ask.py``. Raises ``LabError``."""
    with asking(paths, pod, address, port, *options) as process:
        return answers(process)


@contextmanager
def asking(
    paths: Paths, pod: str, address: str, port: int, *options: str
) -> Iterator[subprocess.Popen[bytes]]:
    """As ``questions``, meanwhile: the block may change something, then take the ``answers``."""
    netns, cgroup = operate.location(paths, pod)
    argv = command(netns, Path(cgroup), [*PYTHON, address, str(port), *options])
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def answers(process: subprocess.Popen[bytes]) -> Answers:
    """Wait for the end of ``asking`` and take what came."""
    try:
        told, complaint = process.communicate(timeout=GRACE)
        return msgspec.json.decode(told, type=Answers)
    except subprocess.TimeoutExpired as error:
        raise LabError(f"the pod asked for more than {GRACE:.0f} s.") from error
    except msgspec.MsgspecError as error:
        said = " ".join(complaint.decode(errors="replace").split())
        raise LabError(f"the pod could not ask: {said}") from error
