"""What balances packets comes and goes by itself, and lives through restarts like all the rest."""

import os
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from bpf import syscalls
from bpf.datapath import load
from bpf.errors import PinMismatchError
from bpf.layout_ct import ConnectionKey
from bpf.links import tcx_supported
from bpf.pins import cleanup
from bpf.specs import BALANCER
from tests.support.bpf import inside, netns

pytestmark = pytest.mark.root


@pytest.fixture
def place():
    name = f"cm-test-{os.getpid()}-lb"
    with netns(name):
        words = ["link", "add", "one", "type", "veth", "peer", "name", "two.7"]
        subprocess.run(["ip", "-n", name, *words], check=True)
        yield name


def pins(root: Path, folder: str) -> set[str]:
    return {path.name for path in (root / "lb" / folder).rglob("*") if path.is_file()}


def devices(*names: str) -> dict[str, int]:
    """Of the calling thread's namespace."""
    return {name: socket.if_nametoindex(name) for name in names}


def test_nothing_is_made_before_somebody_asks(datapath, root):
    assert not (root / "lb").exists()
    assert datapath.forget_balancer() is False


def test_everything_is_pinned_and_adopted(datapath, root, settings):
    with datapath.balancer() as balancer:
        before = {table.name: table.info.id for table in balancer.connections}
        key = ConnectionKey(bytes(4), bytes(4), 1, 2, 6, 4).pack()
        balancer.connections[0].put_many([(key, bytes(56))])
        programs = [info.id for info in balancer.programs()]
    assert pins(root, "maps") == {spec.name for spec in BALANCER.maps}
    with load(root, settings) as again, again.balancer() as balancer:
        assert {table.name: table.info.id for table in balancer.connections} == before
        assert [info.id for info in balancer.programs()] == programs
        assert list(balancer.connections[0].items()) == [(key, bytes(56))]


def test_other_room_is_refused_with_the_difference(datapath, root, settings):
    datapath.balancer().close()
    with (
        load(root, replace(settings, connections=8192)) as again,
        pytest.raises(PinMismatchError, match="cilium_ct4_global: room is 4096, configured 8192"),
    ):
        again.balancer()


@pytest.mark.parametrize("tcx", [True, False], ids=["tcx", "clsact"])
def test_it_is_on_exactly_the_devices_that_are_named(bpffs, settings, place, tcx):
    with (
        load(bpffs / "clustermesh", replace(settings, tcx=tcx)) as datapath,
        datapath.balancer() as balancer,
    ):

        def walk() -> list[bool]:
            return [
                balancer.attach(devices(*names))
                for names in (("one",), ("one",), ("one", "two.7"), ("two.7",), ("two.7",), ())
            ]

        assert inside(walk, namespace=place) == [True, False, True, True, False, True]


def test_devices_whose_names_are_alike_have_pins_of_their_own(datapath, place):
    for name in ("eth0.1", "eth0-1"):
        words = ["link", "add", name, "type", "veth"]
        subprocess.run(["ip", "-n", place, *words], check=True)
    with datapath.balancer() as balancer:

        def walk() -> list[bool]:
            both = devices("eth0.1", "eth0-1")
            return [
                balancer.attach(both),
                balancer.attach(both),
                balancer.attach(devices("eth0.1")),
            ]

        assert inside(walk, namespace=place) == [True, False, True]


def filters(place: str, device: str, side: str) -> str:
    command = ["tc", "-n", place, "filter", "show", "dev", device, side]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def put_theirs(program: Path) -> None:
    """Somebody else's filter, at the place that ours would have on a device of our own."""
    fd = syscalls.open_pin(program)
    with IPRoute() as ip:
        index = socket.if_nametoindex("one")
        ip.tc("add", "clsact", index)
        ip.tc(
            "add-filter", "bpf", index, 1, fd=fd, name="theirs", parent=0xFFFFFFF2, prio=1,
            classid=1, direct_action=True,
        )  # fmt: skip
    os.close(fd)


def test_a_filter_of_somebody_else_stays_in_its_place(bpffs, settings, place):
    root = bpffs / "clustermesh"
    with load(root, replace(settings, tcx=False)) as datapath, datapath.balancer() as balancer:
        program = next((root / "programs").iterdir()) / "cm_to_overlay"
        inside(lambda: put_theirs(program), namespace=place)
        theirs = filters(place, "one", "ingress")
        assert "theirs" in theirs
        inside(lambda: balancer.attach(devices("one")), namespace=place)
        assert "cm_lb_ingress" in filters(place, "one", "ingress")
        assert "cm_lb_egress" in filters(place, "one", "egress")
        inside(lambda: balancer.attach({}), namespace=place)
    assert filters(place, "one", "ingress") == theirs
    assert filters(place, "one", "egress") == ""


def test_filters_of_an_earlier_life_are_taken_off(bpffs, settings, place):
    with (
        load(bpffs / "clustermesh", replace(settings, tcx=False)) as datapath,
        datapath.balancer() as balancer,
    ):
        inside(lambda: balancer.attach(devices("one", "two.7")), namespace=place)
        with datapath.balancer() as again:
            inside(lambda: again.attach(devices("one")), namespace=place)
            assert filters(place, "two.7", "egress") == ""
            assert "cm_lb_egress" in filters(place, "one", "egress")
        assert inside(datapath.forget_balancer, namespace=place) is True
        assert filters(place, "one", "ingress") == filters(place, "one", "egress") == ""


def test_when_it_is_not_wanted_any_more_its_room_is_free(datapath, root, place):
    with datapath.balancer() as balancer:
        inside(lambda: balancer.attach(devices("one")), namespace=place)
        assert pins(root, "links") == ({"one_ingress", "one_egress"} if tcx_supported() else set())
    assert inside(datapath.forget_balancer, namespace=place) is True
    assert not (root / "lb").exists()


def test_cleanup_takes_it_along(datapath, root, place):
    with datapath.balancer() as balancer:
        inside(lambda: balancer.attach(devices("one", "two.7")), namespace=place)
    cleanup(root)
    assert not root.exists()
