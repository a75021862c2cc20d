"""Everybody reaches everybody: who asks, whom, where, by which protocol and family. Tunnel mode.

All questions are asked first, in two processes (a pod and the node beside it); each cell of the
matrix is then judged by itself. docs/datapath.md lists the cells that other tests show.
"""

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import product
from typing import NamedTuple

import pytest

from clustermesh.lab import echo
from clustermesh.lab.topology import ECHO_PORT, SERVICE_PORT, Addresses
from tests.e2e.world import CLIENT, PYTHON, Answer, World

HOST_PORT = 18080
HOME = "cluster-a"
PLACES = {"same node": (HOME, 1), "other node": (HOME, 2), "other cluster": ("cluster-b", 1)}
ASKING = ("pod", "host")
ASKED = ("pod", "host", "service")
FAMILIES = {"v4": 0, "v6": 1}
COUNT = {"pod": 2, "host": 2, "service": 80}
"""A service has four backends: that one of them is never drawn in 80 tries is one in 10^10."""


class Cell(NamedTuple):
    """One of 72."""

    asking: str
    asked: str
    place: str
    protocol: str
    family: str


CELLS = [
    Cell(*parts) for parts in product(ASKING, ASKED, PLACES, ("tcp", "udp"), FAMILIES)
]  # fmt: skip
Seen = dict[tuple[str, ...], list[Answer]]


def aim(world: World, cell: Cell) -> tuple[str, int]:
    """Whom to ask: a pod, the global service, or a process of the node itself: by the node's own
    address in its cluster, by its overlay address from another one."""
    cluster, node = PLACES[cell.place]
    at = FAMILIES[cell.family]
    if cell.asked == "pod":
        return world.pod(cluster, "rebel-base", node).ips[at], ECHO_PORT
    if cell.asked == "host":
        addresses, family = Addresses(world.state().topology), 6 if at else 4
        known = addresses.node if cluster == HOME else addresses.overlay
        return known(cluster, node, family), HOST_PORT
    service = world.manifest(HOME, "Service", "rebel-base")
    return service["spec"]["clusterIPs"][at], SERVICE_PORT


@contextmanager
def serving(world: World, cluster: str, node: int) -> Iterator[None]:
    """A process on the node itself that answers."""
    name = f"node-{node}"
    words = (*PYTHON, echo.__file__, cluster, name, "host", str(HOST_PORT))
    server = subprocess.Popen(world.on_node(cluster, name, *words), stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == b"listening\n"
        yield
    finally:
        server.kill()
        server.communicate()


@pytest.fixture(scope="module")
def answers(lab: World) -> Seen:
    """What each who asks was told; a service is asked once for all places."""
    lab.healthy()
    seen: Seen = {}
    families = 2 if lab.state().topology.ipv6 else 1
    cells = [cell for cell in CELLS if FAMILIES[cell.family] < families]
    with ExitStack() as servers:
        for place in PLACES.values():
            servers.enter_context(serving(lab, *place))
        for asking in ASKING:
            questions = {_question(cell): cell for cell in cells if cell.asking == asking}
            told = _ask(lab, asking, list(questions.values()))
            seen.update(zip(questions, told, strict=True))
    return seen


def _question(cell: Cell) -> tuple[str, ...]:
    """What tells questions apart: of a service, not the place."""
    place = "" if cell.asked == "service" else cell.place
    return (cell.asking, cell.asked, place, cell.protocol, cell.family)


def _ask(world: World, asking: str, cells: list[Cell]) -> list[list[Answer]]:
    cluster, node = PLACES["same node"]
    program = (*PYTHON, str(CLIENT), "each", "10")
    if asking == "pod":
        argv = world.in_pod(world.pod(cluster, "client", node), *program)
    else:
        argv = world.on_node(cluster, f"node-{node}", *program)
    asked = [[cell.protocol, *aim(world, cell), COUNT[cell.asked]] for cell in cells]
    done = subprocess.run(argv, input=json.dumps(asked), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_everybody_reaches_everybody(lab: World, answers: Seen, cell: Cell):
    told = answers[_question(cell)]
    assert [answer for answer in told if "error" in answer] == []
    cluster, node = PLACES[cell.place]
    here = [it for it in told if (it["cluster"], it["node"]) == (cluster, f"node-{node}")]
    assert here, "nobody answered from there"
    assert {it["pod"] == "host" for it in here} == {cell.asked == "host"}
    assert {it["sees"] for it in here} == {"{}:{}".format(*aim(lab, cell))}
    if cell.asking == "pod":
        own = lab.pod(HOME, "client").ips[FAMILIES[cell.family]]
        assert {it["peer"].rpartition(":")[0].strip("[]") for it in here} == {own}
