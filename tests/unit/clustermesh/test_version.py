"""The version is the same wherever it is written."""

import tomllib
from pathlib import Path

from clustermesh.version import VERSION

ROOT = Path(__file__).parents[3]


def test_the_constant_is_what_the_package_is_called() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION
