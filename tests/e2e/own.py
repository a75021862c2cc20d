"""Labs of a test's own: up when asked for, removed at the end, with nothing left behind."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import yaml

from clustermesh.lab.topology import Topology
from tests.e2e import host
from tests.e2e.world import World


@contextmanager
def standing(name: str, *options: str) -> Iterator[World]:
    """A lab of that name; the options are those of `meshctl lab up`."""
    world = World(name)
    world.lab("down", check=False)
    world.lab("up", *options)
    try:
        yield world
    finally:
        world.lab("down")
    assert host.remains(name) == host.NOTHING, "the lab left something behind"


@contextmanager
def connected(name: str, *options: str) -> Iterator[World]:
    """The same, with its two clusters connected and synced."""
    with standing(name, *options) as world:
        world.healthy()
        yield world


@contextmanager
def shaped(name: str, topology: Topology, folder: Path) -> Iterator[World]:
    """The same, as a topology says."""
    file = folder / "topology.yaml"
    file.write_text(yaml.safe_dump(msgspec.to_builtins(topology)))
    with connected(name, "--topology", str(file)) as world:
        yield world
