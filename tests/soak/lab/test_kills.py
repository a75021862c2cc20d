"""Twenty times the end-to-end list after kill -9 of agents at random moments."""

import time
from collections.abc import Iterator

import pytest

from tests.e2e import host, kills
from tests.e2e.conftest import NOTHING
from tests.e2e.world import World

NAME = "soak"
SEEDS = range(1, 21)


@pytest.fixture(scope="module")
def lab() -> Iterator[World]:
    """A lab of its own, removed at the end."""
    world = World(NAME)
    world.lab("down", check=False)
    world.lab("up")
    try:
        world.healthy()
        yield world
    finally:
        world.lab("down")
    assert host.remains(NAME) == NOTHING


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_mesh_is_right_after_agents_died_at_random_moments(lab: World, seed, capsys):
    began = time.monotonic()
    kills.story(lab, seed, steps=2)
    with capsys.disabled():
        print(f"\nseed {seed}: right after {time.monotonic() - began:.0f} s", end="")
