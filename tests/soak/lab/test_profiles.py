"""The end-to-end list where nodes announce no pod ranges, and where pods are outside of them."""

from collections.abc import Iterator

import pytest

from clustermesh.lab.topology import Cluster, PodNetwork, Topology
from tests.e2e import checks
from tests.e2e.own import shaped
from tests.e2e.world import World
from tests.soak.lab.list import LIST, holds

NAME = "soakshapes"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One cluster of VPC CNI's shape, one of Calico's, of both families."""
    shapes = (PodNetwork.VPC, PodNetwork.BORROWED)
    topology = Topology(
        clusters=tuple(
            Cluster(name=name, id=number, network=shape)
            for number, (name, shape) in enumerate(zip(sorted(checks.BOTH), shapes, strict=True), 1)
        ),
        ipv6=True,
    )
    with shaped(NAME, topology, tmp_path_factory.mktemp("shapes")) as world:
        yield world


@pytest.mark.timeout(600)
def test_the_end_to_end_list_holds_in_other_shapes(lab: World, capsys):
    listed = holds(NAME, LIST)
    with capsys.disabled():
        print(f"\nthe list: {listed}", end="")
