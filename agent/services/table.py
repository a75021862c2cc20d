"""The selection table of a frontend: which backend each of its M entries picks.

A table is a function of the backends' names and shares alone, so every node of the mesh builds
the same one, and one found in the map is known by its shares. Two properties make it useful: each
backend has its exact share of the entries (the largest remainder method, so less than one entry
off), and taking one backend away leaves nearly all entries of the others where they were.

Backends claim entries in Maglev's order: with two hashes of its name a backend claims entry
``(h1 mod M + j * (h2 mod (M - 1) + 1)) mod M`` as its j-th (contract datapath 1.8). Claims are
settled by j first: a backend whose j-th entry is taken waits for the next j instead of moving on
at once. That costs nothing and halves what moves when the set of backends changes.
"""

from array import array
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import chain, cycle
from typing import NamedTuple

_FEW = 16
"""With so few entries free, computing who claims them first beats probing for them."""


def quotas(weights: Sequence[int], size: int) -> list[int]:
    """Entries for each weight: they add up to ``size``, and none is a whole entry off its share.

    Entries that do not divide go to the largest remainders, the earlier ones first.
    """
    total = sum(weights)
    exact = [divmod(weight * size, total) for weight in weights]
    given = [whole for whole, _ in exact]
    by_remainder = sorted(range(len(exact)), key=lambda n: -exact[n][1])
    for n in by_remainder[: size - sum(given)]:
        given[n] += 1
    return given


@lru_cache(maxsize=256)
def table(names: tuple[bytes, ...], quotas: tuple[int, ...]) -> Sequence[int]:
    """For each entry the position in ``names`` of the backend it picks.

    Names are distinct and sorted, there is at least one; the quotas add up to the size of the
    table. Ports of a service that have the same backends share one result.
    """
    size = sum(quotas)
    if len(names) == 1:
        return array("i", [0]) * size
    claims = [_Claims.of(name, size) for name in names]
    left, entries = list(quotas), [-1] * size
    _settle_in_turns(claims, left, entries)
    _settle_the_rest(claims, left, entries)
    return array("i", entries)


class _Claims(NamedTuple):
    """The order in which one backend claims entries: ``offset + j * skip (mod size)``."""

    offset: int
    skip: int
    inverse: int

    @classmethod
    def of(cls, name: bytes, size: int) -> "_Claims":
        digest = blake2b(name, digest_size=16).digest()
        h1, h2 = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
        skip = h2 % (size - 1) + 1
        return cls(h1 % size, skip, pow(skip, -1, size))

    def first(self, count: int, size: int) -> Sequence[int]:
        """The first ``count`` claims: part of the multiples of ``skip``, from some multiple on."""
        multiples = _multiples(self.skip, size)
        start = self.offset * self.inverse % size
        part = multiples[start : start + count]
        return part + multiples[: count - len(part)]

    def turn(self, entry: int, size: int) -> int:
        """The j of the claim for ``entry``."""
        return (entry - self.offset) * self.inverse % size


@lru_cache(maxsize=1024)
def _multiples(skip: int, size: int) -> "array[int]":
    """``0, skip, 2 * skip, ...`` modulo ``size``: every entry once, as ``size`` is prime."""
    return array("i", [multiple % size for multiple in range(0, size * skip, skip)])


def _settle_in_turns(claims: Sequence[_Claims], left: list[int], entries: list[int]) -> None:
    """The j-th claim of every backend, for rising j, until few entries are free.

    Nearly all are taken after some ``ln(size / few)`` claims per entry.
    """
    size = len(entries)
    turns = min(size, 6 * size // len(claims) + 1)
    columns = zip(*(each.first(turns, size) for each in claims), strict=True)
    owners, spare = cycle(range(len(claims))), size - _FEW
    for backend, entry in zip(owners, chain.from_iterable(columns), strict=False):  # one is endless
        if entries[entry] < 0 and left[backend]:
            entries[entry] = backend
            left[backend] -= 1
            spare -= 1
            if spare < 0:
                return


def _settle_the_rest(claims: Sequence[_Claims], left: list[int], entries: list[int]) -> None:
    """The same rule for the entries still free, from the turn at which each would be claimed."""
    size = len(entries)
    free = [entry for entry, backend in enumerate(entries) if backend < 0]
    waiting = [backend for backend, missing in enumerate(left) if missing]
    turns = sorted((claims[b].turn(entry, size), b, entry) for b in waiting for entry in free)
    for _, backend, entry in turns:
        if entries[entry] < 0 and left[backend]:
            entries[entry] = backend
            left[backend] -= 1
