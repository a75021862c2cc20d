"""What the node's network gives the overlay, as another cluster's operator has to know it."""

from agent.network import device
from agent.network.device import Unfit
from agent.network.netlink import Kernel, Link, kernel
from agent.network.wanted import OVERHEAD, Place, family
from clustermesh.findings import Underlay


def seen(place: Place) -> Underlay:
    """Reads only. In the calling thread's namespace; raises ``OSError``."""
    with kernel() as net:
        links = net.links()
        mine = next((link for link in links if link.name == place.device), Link(index=0, name=""))
        return Underlay(
            node_ip=place.node_ip,
            port=place.wire_port,
            device_port=mine.port,
            taken_by=_owner(links, place),
            mtu=mine.mtu,
            underlay_mtu=_outer(net, links, place),
        )


def _owner(links: list[Link], place: Place) -> str:
    """The other device that has the port on the wire."""
    others = (it for it in links if it.kind == "vxlan" and it.name != place.device)
    return next((it.name for it in others if it.port == place.wire_port), "")


def _outer(net: Kernel, links: list[Link], place: Place) -> int:
    """Of the device that has the node's address; 0: none has."""
    try:
        return device.underlay_mtu(net, links, place) + OVERHEAD[family(place.node_ip)]
    except Unfit:
        return 0
