"""One round's view of links, addresses and rules, as plain values, and the verbs that change it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec
from pyroute2 import IPRoute, NetlinkError

from agent.network.wanted import HOST_BITS, Family
from clustermesh.tracing import Way

Value = Any
"""A message of pyroute2 or an argument for it; neither has types."""

AF: Final = {4: 2, 6: 10}
UNICAST: Final = 1  # RTN_UNICAST
LOCAL: Final = 2  # RTN_LOCAL
RTM_F_LOOKUP_TABLE: Final = 0x1000  # say in which table it was found
ADDRESS_MODE_NONE: Final = 1  # IN6_ADDR_GEN_MODE_NONE
IFF_UP: Final = 0x1
IFF_NOARP: Final = 0x80
IFA_F_NODAD: Final = 0x02


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A network device. ``port`` and ``external`` (collect metadata) are a VXLAN device's."""

    index: int
    name: str
    kind: str = ""
    mtu: int = 0
    up: bool = False
    noarp: bool = False
    address_mode: int = 0
    port: int = 0
    external: bool = False


class Kernel:
    """Reading and changing links, addresses and rules of this network namespace.

    Counts its writes: a round that finds everything right makes none. Raises ``OSError``.
    """

    def __init__(self, ipr: IPRoute) -> None:
        self._ipr = ipr
        self.writes = 0

    # -- links ----------------------------------------------------------------------------------

    def links(self) -> list[Link]:
        """Every device."""
        return [_link(message) for message in self._ipr.get_links()]

    def add_vxlan(self, name: str, *, port: int, mtu: int) -> None:
        """A VXLAN device whose remote end and identity come with each packet."""
        self._write(
            "link",
            "add",
            ifname=name,
            kind="vxlan",
            vxlan_collect_metadata=True,
            vxlan_learning=False,
            vxlan_port=port,
            vxlan_udp_zero_csum6_tx=True,
            vxlan_udp_zero_csum6_rx=True,
            IFLA_MTU=mtu,
        )

    def set_link(self, index: int, **what: Value) -> None:
        """Change a device."""
        self._write("link", "set", index=index, **what)

    def no_addresses_of_its_own(self, index: int) -> None:
        """No link-local address is made for the device."""
        mode = {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", ADDRESS_MODE_NONE)]}
        self.set_link(index, IFLA_AF_SPEC={"attrs": [("AF_INET6", mode)]})

    def delete_link(self, index: int) -> None:
        """Remove a device."""
        self._write("link", "del", index=index)

    # -- addresses ------------------------------------------------------------------------------

    def addresses(self) -> list[tuple[str, int]]:
        """Every local address with the index of its device."""
        return [
            (message.get("IFA_LOCAL") or message.get("IFA_ADDRESS"), message["index"])
            for message in self._ipr.get_addr()
        ]

    def add_address(self, index: int, address: str, which: Family) -> None:
        """A host address; no duplicate is looked for where no neighbour can be asked."""
        flags = {"IFA_FLAGS": IFA_F_NODAD} if which == 6 else {}
        self._write(
            "addr", "add", index=index, address=address, prefixlen=HOST_BITS[which], **flags
        )

    def delete_address(self, index: int, address: str, which: Family) -> None:
        """Take a host address away."""
        self._write("addr", "del", index=index, address=address, prefixlen=HOST_BITS[which])

    # -- routes and rules -----------------------------------------------------------------------

    def way_to(self, address: str) -> Way:
        """The route to an address as the kernel chooses it now."""
        try:
            answers = list(self._ipr.route("get", dst=address, flags=RTM_F_LOOKUP_TABLE))
        except NetlinkError as error:
            return Way(error=os.strerror(error.code or 0))
        if not answers:
            return Way(error="the kernel does not tell")
        found = answers[0]
        link = next((it for it in self.links() if it.index == found.get("RTA_OIF")), None)
        return Way(
            device=link.name if link else "",
            table=found.get("RTA_TABLE") or 0,
            gateway=found.get("RTA_GATEWAY") or "",
            source=found.get("RTA_PREFSRC") or "",
            mtu=link.mtu if link else 0,
            error="" if found["type"] in (UNICAST, LOCAL) else "unreachable",
        )

    def rules(self, table: int, which: Family) -> list[int]:
        """Priorities of the rules that lead to the table."""
        return [
            message.get("FRA_PRIORITY") or 0
            for message in self._ipr.get_rules(family=AF[which])
            if message.get("FRA_TABLE") == table
        ]

    def add_rule(self, table: int, priority: int, which: Family) -> None:
        """All packets look into the table first."""
        self._write("rule", "add", table=table, priority=priority, family=AF[which])

    def delete_rule(self, table: int, priority: int, which: Family) -> None:
        """Remove one rule."""
        self._write("rule", "del", table=table, priority=priority, family=AF[which])

    def _write(self, verb: str, *what: Value, **how: Value) -> None:
        self.writes += 1
        try:
            getattr(self._ipr, verb)(*what, **how)
        except NetlinkError as error:
            code = error.code or 0
            words = " ".join(f"{name} {value}" for name, value in how.items())
            raise OSError(code, f"{verb} {what[0]} {words}: {os.strerror(code)}") from None


@contextmanager
def kernel() -> Iterator[Kernel]:
    """The calling thread's network namespace. Blocks: use it in a worker thread."""
    with IPRoute(strict_check=True) as ipr:
        try:
            yield Kernel(ipr)
        except NetlinkError as error:
            code = error.code or 0
            raise OSError(code, f"netlink: {os.strerror(code)}") from None


def _link(message: Value) -> Link:
    info = message.get("IFLA_LINKINFO")
    data = info.get("IFLA_INFO_DATA") if info else None
    is_vxlan = bool(info) and info.get("IFLA_INFO_KIND") == "vxlan"
    return Link(
        index=message["index"],
        name=message.get("IFLA_IFNAME") or "",
        kind=(info.get("IFLA_INFO_KIND") or "") if info else "",
        mtu=message.get("IFLA_MTU") or 0,
        up=bool(message["flags"] & IFF_UP),
        noarp=bool(message["flags"] & IFF_NOARP),
        address_mode=_address_mode(message),
        port=(data.get("IFLA_VXLAN_PORT") or 0) if is_vxlan and data else 0,
        external=bool(data.get("IFLA_VXLAN_COLLECT_METADATA")) if is_vxlan and data else False,
    )


def _address_mode(message: Value) -> int:
    for part in ("IFLA_AF_SPEC", "AF_INET6"):
        message = message.get(part)
        if message is None:
            return ADDRESS_MODE_NONE  # IPv6 is off: nothing is made
    return int(message.get("IFLA_INET6_ADDR_GEN_MODE") or 0)
