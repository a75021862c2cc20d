"""One lab for the whole run: brought up after an interrupted try, removed at the end."""

import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import host
from tests.e2e.world import MESHCTL, NAME, TOOK, World

BEFORE: dict[str, dict[str, str]] = {}


@pytest.fixture(scope="session")
def before() -> dict[str, dict[str, str]]:
    """The host before any lab."""
    if not BEFORE:
        World().lab("down", check=False)
        BEFORE.update(host=host.picture())
    return BEFORE


@pytest.fixture(scope="session")
def interrupted(before: dict[str, dict[str, str]]) -> dict[str, Any]:
    """The host after somebody pressed Ctrl-C while a lab was being built."""
    up = subprocess.Popen(
        [*MESHCTL, "lab", "up", "--ipv6", "--name", NAME],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert up.stdout is not None
    said = ""
    while "waiting until all are ready" not in said:  # everything is made, nothing is ready
        line = up.stdout.readline()
        assert line, f"it ended before it could be interrupted: {said}"
        said += line
    up.send_signal(signal.SIGINT)
    out, _ = up.communicate(timeout=60)
    return {
        "host": host.picture(),
        "remains": host.remains(NAME),
        "said": {"code": str(up.returncode), "output": said + out},
    }


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Iterator[World]:
    """The lab, up, of both families. Connected it is by the tests. Removed, it leaves no trace.

    With ``E2E_LAB`` it is one that somebody else has made, and removes.
    """
    if name := os.environ.get("E2E_LAB"):
        yield World(name)
        return
    before = request.getfixturevalue("before")
    request.getfixturevalue("interrupted")
    world = World()
    world.lab("up", "--ipv6")
    try:
        yield world
    finally:
        world.lab("down")
    assert host.picture() == before["host"], "the lab changed the host"
    assert host.remains(NAME) == host.NOTHING, "the lab left something behind"


@pytest.fixture
def mesh(lab: World) -> World:
    """The lab with every process running, connected and synced."""
    lab.healthy()
    return lab


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Nothing fails for being slow here; what was waited for is told with its time."""
    if TOOK:
        terminalreporter.section("times")
        for line in TOOK:
            terminalreporter.line(line)
