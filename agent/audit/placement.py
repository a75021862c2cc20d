"""Where each endpoint must be in a selection table, worked out the slow and plain way [pure].

Contract datapath 1.8: an endpoint's claims are the entries ``(h1 mod M + j * (h2 mod (M - 1) + 1))
mod M`` for j from 0. In turn j each endpoint that has not got its share yet takes its j-th claim if
that is free.
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from hashlib import blake2b
from math import floor


def quotas(shares: Sequence[Fraction], size: int) -> tuple[int, ...]:
    """Entries for each share: whole ones first, what is left to the largest remainders."""
    exact = [share * size for share in shares]
    given = [floor(it) for it in exact]
    waiting = sorted(range(len(exact)), key=lambda n: given[n] - exact[n])
    for n in waiting[: size - sum(given)]:
        given[n] += 1
    return tuple(given)


@lru_cache(maxsize=64)
def placed(names: tuple[bytes, ...], quotas: tuple[int, ...]) -> tuple[int, ...]:
    """For each entry which of the names it picks; the quotas add up to the table's size."""
    size, left = sum(quotas), list(quotas)
    entries = [-1] * size
    claims = [_claims(name, size) for name in names]
    for turn in range(size):
        for which, (first, step) in enumerate(claims):
            entry = (first + turn * step) % size
            if left[which] and entries[entry] < 0:
                entries[entry] = which
                left[which] -= 1
        if not any(left):
            break
    return tuple(entries)


def _claims(name: bytes, size: int) -> tuple[int, int]:
    digest = blake2b(name, digest_size=16).digest()
    h1, h2 = (int.from_bytes(half, "little") for half in (digest[:8], digest[8:]))
    return h1 % size, h2 % (size - 1) + 1
