"""Which UDP port our device gets beside those of others."""

import pytest

from agent.network.device import Unfit, ensure, free_port
from agent.network.netlink import Link
from agent.network.wanted import Place


def vxlan(name: str, port: int) -> Link:
    return Link(index=9, name=name, kind="vxlan", port=port, external=name == "cm_vxlan")


@pytest.mark.parametrize(
    ("links", "port"),
    [
        ([], 8472),
        ([vxlan("flannel.1", 8472)], 8473),
        ([vxlan("flannel.1", 8472), vxlan("other", 8473)], 8474),
        ([vxlan("flannel.1", 4789)], 8472),
        ([vxlan("cm_vxlan", 8472)], 8472),
        ([vxlan("cm_vxlan", 8472), vxlan("flannel.1", 8472)], 8473),
        ([vxlan("cm_vxlan", 8473)], 8473),  # flannel went: no reason to interrupt anybody
        ([vxlan("cm_vxlan", 8473), vxlan("flannel.1", 8472)], 8473),
    ],
)
def test_nobody_loses_a_port(links: list[Link], port: int) -> None:
    assert free_port(links, Place()) == port


def test_a_port_that_was_asked_for_is_taken() -> None:
    assert free_port([vxlan("cm_vxlan", 8472)], Place(device_port=9000)) == 9000


def test_no_free_port_is_refused_with_the_way_out() -> None:
    links = [vxlan(f"v{port}", port) for port in range(8472, 8572)]
    with pytest.raises(Unfit, match="--device-port"):
        free_port(links, Place())


class Vanishing:
    """A kernel in which somebody removes our device as soon as it is made."""

    def links(self) -> list[Link]:
        return []

    def add_vxlan(self, name: str, *, port: int, mtu: int) -> None:
        pass


def test_a_device_that_goes_while_it_is_made_is_a_trouble_and_no_crash() -> None:
    with pytest.raises(Unfit, match="cm_vxlan was removed by somebody"):
        ensure(Vanishing(), Place(mtu=1400))
