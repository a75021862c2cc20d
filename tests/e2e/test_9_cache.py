"""The same promises with a kvstoremesh between the agents and the remote etcds.

A small part of the list is here; all of it, again and again, is in tests/soak/lab.
"""

from collections.abc import Iterator

import pytest

from tests.e2e import cache, checks
from tests.e2e.own import connected
from tests.e2e.world import World, eventually

NAME = "e2ecache"


@pytest.fixture(scope="module")
def cached() -> Iterator[World]:
    """A lab of its own, with caches; removed at the end."""
    with connected(NAME, "--kvstoremesh") as world:
        yield world


def test_the_list_holds_and_agents_know_remote_clusters_from_the_cache_alone(cached: World) -> None:
    checks.the_short_list(cached)
    cache.agents_read_the_cache(cached)


def test_a_killed_cache_loses_nothing_and_catches_up(cached: World) -> None:
    with cache.traffic(cached) as seen:
        cached.lab("kill", "cluster-a/kvstoremesh")
        cached.lab("scale", "cluster-b/rebel-base", "3")
        checks.settled(cached, "cluster-a", checks.BOTH)
        cached.lab("restart", "cluster-a/kvstoremesh")
        eventually(
            "the third pod answers through a cache that was away",
            lambda: len(cache.answering_pods(cached, "cluster-a", of="cluster-b")) == 3,
        )
        cached.lab("scale", "cluster-b/rebel-base", "2")
    cache.nobody_noticed(seen)


def test_a_wiped_etcd_is_filled_again_under_traffic(cached: World) -> None:
    with cache.traffic(cached) as seen:
        cache.wipe(cached, "cluster-a")
        cached.meshctl("status", "--wait", "--timeout", "60")
        checks.settled(cached, "cluster-a", checks.BOTH)
    cache.nobody_noticed(seen)
    eventually(
        "the cache equals its source",
        lambda: cache.copied(cached, "cluster-a", of="cluster-b"),
    )
    checks.maps_are_right(cached)
