"""``./dev bench [NAME ...]``: the measurements below this folder, one process each, in turn.

A name is a part of a path, such as ``kvstore`` or ``agent/core``; without one, all of them run.
Every measurement prints ratios against a reference of the same run.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def chosen(names: list[str]) -> list[Path]:
    """The measurements that any of the names is a part of."""
    found = sorted(
        path for path in HERE.glob("*/*.py") if '__name__ == "__main__"' in path.read_text()
    )
    return [
        path
        for path in found
        if not names or any(name in str(path.relative_to(HERE)) for name in names)
    ]


def main(names: list[str]) -> int:
    """The number of measurements that failed."""
    scripts = chosen(names)
    if not scripts:
        known = ", ".join(str(path.relative_to(HERE).with_suffix("")) for path in chosen([]))
        sys.exit(f"no measurement is called {' or '.join(names)}; there are {known}")
    failed = 0
    for script in scripts:
        print(f"\n### {script.relative_to(HERE)}", flush=True)
        failed += subprocess.run([sys.executable, str(script)]).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
