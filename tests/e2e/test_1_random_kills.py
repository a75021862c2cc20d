"""Kill -9 of agents at random moments, before the list: two seeds here, twenty in the soak."""

import pytest

from tests.e2e import kills
from tests.e2e.world import World


@pytest.mark.parametrize("seed", [1, 2])
def test_the_mesh_is_right_after_agents_died_at_random_moments(mesh: World, seed):
    kills.story(mesh, seed, steps=1)
