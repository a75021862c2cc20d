"""Twenty times the end-to-end list after kill -9 of agents at random moments."""

import time
from collections.abc import Iterator

import pytest

from tests.e2e import kills
from tests.e2e.own import connected
from tests.e2e.world import World
from tests.soak.lab.list import LIST, REST, holds

NAME = "soak"
SEEDS = range(1, 21)


@pytest.fixture(scope="module")
def lab() -> Iterator[World]:
    """A lab of its own, of both families, removed at the end."""
    with connected(NAME, "--ipv6") as world:
        yield world


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_mesh_is_right_after_agents_died_at_random_moments(lab: World, seed, capsys):
    began = time.monotonic()
    kills.story(lab, seed, steps=2)
    right = time.monotonic() - began
    listed = holds(NAME, LIST)
    with capsys.disabled():
        print(f"\nseed {seed}: right after {right:.0f} s, the list: {listed}", end="")


@pytest.mark.timeout(900)
def test_the_rest_of_the_list_holds_after_all_of_them(lab: World, capsys):
    listed = holds(NAME, REST)
    with capsys.disabled():
        print(f"\nthe rest of the list: {listed}", end="")
