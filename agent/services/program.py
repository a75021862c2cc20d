"""What the maps hold about one frontend, in numbers, and the bytes that say so.

Contract datapath 1.3 to 1.8. A frontend has a master entry, one slot for each backend (those in
use first, then those that only keep their connections), a reverse-NAT entry, a selection table
and, with session affinity, one match entry for each backend in use.
"""

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from bpf.layout_lb import (
    AffinityMatchKey,
    ReverseNatValue,
    ServiceFlag,
    ServiceKey,
    ServiceValue,
    SourceRangeKey,
    pack_rev_nat,
    pack_table,
    unpack_table,
)

Entry = tuple[bytes, bytes]

_SLOT_KEYS = ServiceKey.FORMATS
_SLOT_VALUE = ServiceValue.FORMAT
MATCH = b"\0"
"""The value of an affinity match, and of a source range; its presence is the message (contract
datapath 1.6, 1.7)."""

Range = tuple[int, bytes]
"""Clients of a frontend: bits of their prefix, and its address."""


class Place(NamedTuple):
    """Where a frontend is: what a client connects to. ``scope`` 1: for clients inside, where those
    outside have one of their own (contract datapath 1.3)."""

    address: bytes
    port: int
    proto: int
    scope: int = 0


class Program(msgspec.Struct, frozen=True, gc=False):
    """What the maps hold for a frontend.

    ``backends``: ids in the order of slots; the first ``count`` are selected, the last ``parked``
    are on their way out. ``slots``: how many slot entries there may be, at least as many as
    backends. ``shares``: digest of how many entries of the selection table each backend has, empty
    for no table; a table follows from its shares. ``ranges``: whom the frontend serves, where
    its flags say that it does not serve everybody. ``whole``: the entries are known to be as
    described; if not, all are written again.
    """

    id: int
    backends: tuple[int, ...]
    count: int
    parked: int
    flags: int
    timeout: int
    shares: bytes
    slots: int
    ranges: tuple[Range, ...] = ()
    whole: bool = True

    @property
    def matches(self) -> tuple[int, ...]:
        """Backends with an affinity match: those in use, if clients are to stick."""
        return self.backends[: self.count] if self.timeout else ()


def shares(entries: Mapping[int, int]) -> bytes:
    """A short stand-in for a table that gives each backend id so many entries."""
    pairs = (number for pair in sorted(entries.items()) for number in pair)
    return blake2b(array("Q", pairs).tobytes(), digest_size=8).digest() if entries else b""


def shares_of(table: bytes) -> bytes:
    """The same for a table as it is in the map."""
    return shares(Counter(unpack_table(table)))


def selection(ids: Sequence[int], positions: Sequence[int]) -> bytes:
    """The bytes of a selection table: for each entry the id of the backend it picks."""
    return pack_table([ids[position] for position in positions])


def master(place: Place, program: Program) -> Entry:
    """The entry that makes the frontend known."""
    key = ServiceKey(place.address, place.port, place.proto, 0, place.scope)
    value = ServiceValue(program.timeout, program.count, program.id, program.flags, program.parked)
    return key.pack(), value.pack()


def slots(place: Place, program: Program, start: int = 0) -> Iterator[tuple[int, Entry]]:
    """Number and entry of each slot from index ``start`` on."""
    rev_nat = pack_rev_nat(program.id)
    parked_from = len(program.backends) - program.parked
    for index in range(start, len(program.backends)):
        flags = ServiceFlag.QUARANTINED if index >= parked_from else 0
        value = _SLOT_VALUE.pack(program.backends[index], 0, rev_nat, flags, 0)
        yield index, (slot_key(place, index + 1), value)


def slot_key(place: Place, slot: int) -> bytes:
    """The key of slot ``slot``; 0 is the master."""
    address, port, proto, scope = place
    packer = _SLOT_KEYS[len(address) == 16]
    return packer.pack(address, port.to_bytes(2, "big"), slot, proto, scope)


def reverse_nat(place: Place, program: Program) -> Entry:
    """The entry that leads from the frontend's id back to its address."""
    return pack_rev_nat(program.id), ReverseNatValue(place.address, place.port).pack()


def range_key(clients: Range, number: int) -> bytes:
    """The key that says these clients may ask the frontend with this id."""
    prefix, address = clients
    return SourceRangeKey(number, address, prefix).pack()


def match_key(backend: int, program: Program) -> bytes:
    """The key that says clients may stick to this backend."""
    return AffinityMatchKey(backend, program.id).pack()
