"""A million packets through each program: tests/integration/bpf/test_*_fuzz, ten times over.

A new seed each time; CM_FUZZ_SEED repeats a run, and the failure names it.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.soak, pytest.mark.root, pytest.mark.timeout(3600)]

ROOT = Path(__file__).parents[3]
MILLION = "1000000"
FUZZ = [f"tests/integration/bpf/test_{which}_fuzz.py" for which in ("overlay", "balance")]


def test_a_million_packets_are_judged_by_the_rules() -> None:
    seed = os.environ.get("CM_FUZZ_SEED", str(int(time.time())))
    env = {**os.environ, "CM_FUZZ_RUNS": os.environ.get("CM_FUZZ_RUNS", MILLION)}
    command = [sys.executable, "-m", "pytest", "-q", "-o", "timeout=3600", "--durations=0"]
    done = subprocess.run(
        [*command, *FUZZ],
        env={**env, "CM_FUZZ_SEED": seed}, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    sys.stdout.write(done.stdout)
    assert done.returncode == 0, f"CM_FUZZ_SEED={seed}\n{done.stdout[-3000:]}"
