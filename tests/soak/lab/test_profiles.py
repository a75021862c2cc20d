"""The end-to-end list where nodes announce no pod ranges, and where pods are outside of them."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import yaml

from clustermesh.lab.topology import Cluster, PodNetwork, Topology
from tests.e2e import checks, host
from tests.e2e.conftest import NOTHING
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
    file: Path = tmp_path_factory.mktemp("shapes") / "topology.yaml"
    file.write_text(yaml.safe_dump(msgspec.to_builtins(topology)))
    world = World(NAME)
    world.lab("down", check=False)
    world.lab("up", "--topology", str(file))
    try:
        world.healthy()
        yield world
    finally:
        world.lab("down")
    assert host.remains(NAME) == NOTHING


@pytest.mark.timeout(600)
def test_the_end_to_end_list_holds_in_other_shapes(lab: World, capsys):
    listed = holds(NAME, LIST)
    with capsys.disabled():
        print(f"\nthe list: {listed}", end="")
