"""What holds for every command: JSON, a mesh to choose, exit codes that are documented."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from clustermesh.meshctl import cli
from clustermesh.meshctl.errors import Exit

OPERATIONS = Path(__file__).parents[4] / "docs/operations.md"
NO_JSON = {"lab exec", "lab generate", "lab demo"}
"""A program of the operator's own, a measurement, a story: nobody parses these."""


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    below = getattr(command, "commands", None)
    if below is None:
        yield " ".join(path), command
        return
    for name, each in below.items():
        yield from commands(each, (*path, name))


EVERY = dict(commands(typer.main.get_command(cli.app)))


def options(command: Any) -> set[str]:
    return {word for parameter in command.params for word in getattr(parameter, "opts", ())}


@pytest.mark.parametrize("name", sorted(EVERY))
def test_every_command_gives_json(name: str):
    assert ("-o" in options(EVERY[name])) is (name not in NO_JSON)


@pytest.mark.parametrize("name", sorted(EVERY))
def test_every_command_says_what_it_does(name: str):
    assert (EVERY[name].help or "").strip().endswith((".", ")", "`"))


def test_exit_codes_are_documented_in_one_table():
    rows = re.findall(r"^\| (\d+) \|", OPERATIONS.read_text(), re.MULTILINE)
    assert [int(row) for row in rows] == sorted(Exit)
    for code in Exit:
        assert code is Exit.OK or f"{code.value} " in cli.EPILOG
