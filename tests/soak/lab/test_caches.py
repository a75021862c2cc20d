"""The end-to-end list with caches, after agents and caches were killed and an etcd was wiped."""

import time
from collections.abc import Iterator
from random import Random

import pytest

from tests.e2e import cache, checks, kills
from tests.e2e.own import connected
from tests.e2e.world import World

NAME = "soakcache"
SEEDS = range(1, 11)


@pytest.fixture(scope="module")
def lab() -> Iterator[World]:
    """A lab of its own, with caches, removed at the end."""
    with connected(NAME, "--kvstoremesh") as world:
        yield world


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_mesh_is_right_after_its_caches_died_and_were_emptied(lab: World, seed, capsys):
    random, began = Random(seed), time.monotonic()
    kills.story(lab, seed, steps=1, targets=kills.AGENTS + kills.CACHES)
    with cache.traffic(lab) as seen:
        cluster = random.choice(sorted(checks.BOTH))
        if random.random() < 0.5:
            lab.lab("kill", f"{cluster}/kvstoremesh")
        cache.wipe(lab, cluster)
        time.sleep(random.uniform(0, 2))
        lab.lab("restart")
        checks.settled(lab, cluster, checks.BOTH)
    cache.nobody_noticed(seen)
    cache.everything_is_right(lab)
    with capsys.disabled():
        print(f"\nseed {seed}: right after {time.monotonic() - began:.0f} s", end="")
