"""Addresses for derived services where no API server gives any: the same again after a restart."""

import hashlib
import ipaddress
from collections.abc import Iterable
from typing import Final

from clustermesh.mcs.names import Name

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
TRIES: Final = 4096  # addresses looked at before a range counts as full


def parse(text: str) -> tuple[Network, ...]:
    """The ranges of ``198.19.0.0/16,fd19::/112``. Raises ``ValueError`` with a sentence."""
    found: list[Network] = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        try:
            network = ipaddress.ip_network(part)
        except ValueError as error:
            raise ValueError(f"{error}; expected a range such as 198.19.0.0/16") from None
        if network.num_addresses < 4:
            raise ValueError(f"{part}: too small a range")
        if any(each.version == network.version for each in found):
            raise ValueError(f"{part}: one range of each family, not two of IPv{network.version}")
        found.append(network)
    return tuple(found)


class Pool:
    """Who has which address. Names keep theirs; each begins to look where its hash says."""

    def __init__(self, networks: Iterable[Network]) -> None:
        """At most one network of each family."""
        self._networks = {f"IPv{each.version}": each for each in networks}
        self._holders: dict[str, Name] = {}
        self._held: dict[Name, dict[str, str]] = {}

    def take(self, name: Name, families: Iterable[str]) -> tuple[str, ...]:
        """One address for each family that there is a range for; none when all are taken."""
        held = self._held.setdefault(name, {})
        wanted = [each for each in families if each in self._networks]
        for family in held.keys() - set(wanted):
            del self._holders[held.pop(family)]
        for family in wanted:
            if family not in held and (address := self._free(name, self._networks[family])):
                held[family] = address
                self._holders[address] = name
        return tuple(held[each] for each in wanted if each in held)

    def release(self, name: Name) -> None:
        """It needs none any more."""
        for address in self._held.pop(name, {}).values():
            del self._holders[address]

    def _free(self, name: Name, network: Network) -> str:
        """The first and the last address of a range are nobody's."""
        size = network.num_addresses - 2
        start = int.from_bytes(hashlib.sha256("/".join(name).encode()).digest()[:8])
        for step in range(min(size, TRIES)):
            address = str(network[1 + (start + step) % size])
            if address not in self._holders:
                return address
        return ""
