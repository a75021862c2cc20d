"""One lab for the whole run: brought up after an interrupted try, removed at the end."""

import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.e2e import host
from tests.e2e.world import MESHCTL, NAME, World

BEFORE: dict[str, dict[str, str]] = {}


@pytest.fixture(scope="session")
def before() -> dict[str, dict[str, str]]:
    """The host before any lab."""
    if not BEFORE:
        World().lab("down", check=False)
        BEFORE.update(host=host.picture(), made=host.cgroups_and_namespaces())
    return BEFORE


@pytest.fixture(scope="session")
def interrupted(before: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """The host after somebody pressed Ctrl-C while a lab was being built."""
    up = subprocess.Popen(
        [*MESHCTL, "lab", "up", "--name", NAME],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    time.sleep(3.0)
    up.send_signal(signal.SIGINT)
    out, _ = up.communicate(timeout=60)
    return {
        "host": host.picture(),
        "made": host.cgroups_and_namespaces(),
        "said": {"code": str(up.returncode), "output": out},
    }


@pytest.fixture(scope="session")
def lab(
    before: dict[str, dict[str, str]], interrupted: dict[str, dict[str, str]]
) -> Iterator[World]:
    """The lab, up. Connected it is by the tests. Removed, it leaves the host as it was."""
    world = World()
    world.lab("up")
    try:
        yield world
    finally:
        world.lab("down")
    assert host.picture() == before["host"], "the lab changed the host"
    assert host.cgroups_and_namespaces() == before["made"], "the lab left something behind"


@pytest.fixture
def mesh(lab: World) -> World:
    """The lab with every process running, connected and synced."""
    lab.healthy()
    return lab
