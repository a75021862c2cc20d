"""The VXLAN device: made, mended, and never on a port that another device needs."""

from collections.abc import Sequence
from typing import Final

from agent.network.netlink import ADDRESS_MODE_NONE, Kernel, Link
from agent.network.wanted import OVERHEAD, Place, family

LEAST_MTU: Final = 1280


class Unfit(Exception):
    """The node's network does not allow what is needed; the text says what and the way out."""


def ensure(kernel: Kernel, place: Place) -> Link:
    """The device as it should be, changed where it differs; raises ``Unfit``."""
    links = kernel.links()
    mine = next((link for link in links if link.name == place.device), None)
    port = free_port(links, place)
    mtu = place.mtu or underlay_mtu(kernel, links, place)
    if mine is not None and not _same_make(mine, port):
        kernel.delete_link(mine.index)
        mine = None
    if mine is None:
        kernel.add_vxlan(place.device, port=port, mtu=mtu)
        mine = _present(kernel, place.device)
    return _mend(kernel, mine, mtu)


def find(kernel: Kernel, name: str) -> Link | None:
    """The device if it is there and ours."""
    return next(
        (link for link in kernel.links() if link.name == name and link.kind == "vxlan"), None
    )


def free_port(links: Sequence[Link], place: Place) -> int:
    """The port for our device: where it is if nobody else needs that, else the wire's or the next.

    The kernel lets no two devices in collect-metadata mode share a port, nor one of them share it
    with an ordinary VXLAN device (design 5); whoever comes second stays down.
    """
    others = {link.port for link in links if link.kind == "vxlan" and link.name != place.device}
    if place.device_port:
        return place.device_port
    present = [link.port for link in links if link.name == place.device and link.external]
    candidates: list[int] = [*present, *range(place.wire_port, place.wire_port + 100)]
    for port in candidates:
        if 0 < port < 65536 and port not in others:
            return port
    raise Unfit(
        f"no UDP port from {place.wire_port} on is free for {place.device};"
        " name one with --device-port"
    )


def underlay_mtu(kernel: Kernel, links: Sequence[Link], place: Place) -> int:
    """What the device that holds the node's address leaves for inner packets."""
    index = next((at for address, at in kernel.addresses() if address == place.node_ip), None)
    outer = next((link.mtu for link in links if link.index == index), None)
    if outer is None:
        raise Unfit(
            f"no device of this node has the address {place.node_ip};"
            " give --node-ip an address that other nodes can reach here"
        )
    return max(min(outer, 65535) - OVERHEAD[family(place.node_ip)], LEAST_MTU)


def _same_make(link: Link, port: int) -> bool:
    return link.kind == "vxlan" and link.external and link.port == port


def _mend(kernel: Kernel, link: Link, mtu: int) -> Link:
    if link.address_mode != ADDRESS_MODE_NONE:
        kernel.no_addresses_of_its_own(link.index)
    if link.mtu != mtu:
        kernel.set_link(link.index, IFLA_MTU=mtu)
    if not link.noarp:
        kernel.set_link(link.index, arp=False)
    if not link.up:
        kernel.set_link(link.index, state="up")
    return _present(kernel, link.name)


def _present(kernel: Kernel, name: str) -> Link:
    """The device that was there a moment ago."""
    for link in kernel.links():
        if link.name == name:
            return link
    raise Unfit(f"device {name} was removed by somebody; it is made again")
