"""Other CNIs' shapes: nodes that announce no pod ranges, and pods outside of their node's range."""

import subprocess
from collections.abc import Iterator

import pytest

from clustermesh.lab.topology import Cluster, PodNetwork, Topology
from tests.e2e import checks
from tests.e2e.own import shaped
from tests.e2e.world import World

NAME = "e2e2"


@pytest.fixture(scope="module")
def profiles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One cluster of each shape, connected; a lab of its own."""
    topology = Topology(
        clusters=(
            Cluster(name="cluster-a", id=1, network=PodNetwork.VPC),
            Cluster(name="cluster-b", id=2, network=PodNetwork.BORROWED),
        )
    )
    with shaped(NAME, topology, tmp_path_factory.mktemp("profiles")) as world:
        yield world


def routes(mesh: World, cluster: str, node: str, *what: str) -> str:
    argv = mesh.on_node(cluster, node, "ip", *what)
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def test_the_shapes_are_what_they_are_called(profiles: World):
    node = profiles.manifest("cluster-a", "Node", "node-1")
    assert "podCIDR" not in node["spec"]
    pod = profiles.pod("cluster-a", "client")
    assert f"from {pod.ips[0]} lookup 10" in routes(profiles, "cluster-a", "node-1", "rule")
    lent = profiles.pod("cluster-b", "rebel-base", 1)
    assert lent.ips[0].startswith("10.2.2."), "node-1's pod is in node-2's range"


def test_pods_outside_of_any_range_have_a_route_each(profiles: World):
    table = routes(profiles, "cluster-b", "node-1", "route", "show", "table", "8472")
    for workload in ("client", "rebel-base"):
        for pod in profiles.pods("cluster-a", workload):
            assert f"{pod.ips[0]} " in table, table


def test_pods_reach_pods_both_ways(profiles: World):
    checks.pods_reach_pods(profiles)


def test_services_answer_from_both_clusters(profiles: World):
    checks.services_answer(profiles)


def test_a_pod_that_comes_and_one_that_goes_are_followed(profiles: World):
    for cluster, other in (("cluster-a", "cluster-b"), ("cluster-b", "cluster-a")):
        profiles.lab("scale", f"{cluster}/rebel-base", "0")
        checks.settled(profiles, other, {other})
        profiles.lab("scale", f"{cluster}/rebel-base", "3")
        checks.settled(profiles, other, checks.BOTH)
    checks.pods_reach_pods(profiles)


def test_the_maps_are_right(profiles: World):
    checks.maps_are_right(profiles)
