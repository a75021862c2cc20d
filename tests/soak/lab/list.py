"""The end-to-end list of tests/e2e, run as it is on a lab that is up."""

import os
import subprocess
import sys
from pathlib import Path

from tests.e2e import kills

E2E = Path(kills.__file__).parent
LIST = ("test_2_matrix", "test_2_pods", "test_3_services")
"""What a mesh does while nothing fails."""
REST = ("test_4_failures", "test_5_operator", "test_6_demo", "test_7_monitor")
"""What it does when something does, and what it says: minutes."""


def holds(lab: str, modules: tuple[str, ...]) -> str:
    """Run these parts of the list; their last line, such as ``9 passed``."""
    files = [str(E2E / f"{module}.py") for module in modules]
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    done = subprocess.run(
        argv, env={**os.environ, "E2E_LAB": lab}, cwd=E2E.parents[1], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout.strip().splitlines()[-1].strip("= ")
