"""Source ranges in the maps against those that frontends must have [pure].

Contract datapath 1.7.
"""

from collections.abc import Collection, Iterator, Mapping
from struct import pack
from typing import Final

from agent.audit.compare import Drift, drift
from agent.audit.frontends import Clients, Wanted

PRESENT: Final = b"\0"
"""The value of a range: it says nothing."""

Ranges = Mapping[int, Mapping[Clients, bytes]]
"""By frontend id: clients, and the value of their entry."""


def differences(family: str, found: Ranges, wanted: Wanted, number: int) -> Iterator[Drift]:
    """Of one frontend with this id."""
    there = found.get(number, {})
    for it in sorted(wanted.clients):
        if there.get(it) != PRESENT:
            yield drift(
                "source_ranges" + family, _key(number, it), service=wanted.service,
                expected="present", found=there[it].hex() if it in there else "",
            )  # fmt: skip
    for it in sorted(there.keys() - wanted.clients):
        yield drift(
            "source_ranges" + family, _key(number, it), found="present", service=wanted.service
        )


def strangers(family: str, found: Ranges, known: Collection[int]) -> Iterator[Drift]:
    """Of frontends that nobody has."""
    for number in sorted(found.keys() - set(known)):
        for it in sorted(found[number]):
            yield drift("source_ranges" + family, _key(number, it), found="present")


def _key(number: int, clients: Clients) -> bytes:
    bits, address = clients
    return pack("<I", 32 + bits) + pack(">HH", number, 0) + address
