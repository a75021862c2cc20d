"""One map that several clusters have entries in: who claims a key, who wins, what is to be written.

There may be a million claims, so each is two byte strings in one dict: the map's key, and the map's
value followed by who claims it. Nothing else is kept of a claim unless two want the same key; then
the better claimant wins, whatever came first, and the other waits.
"""

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from struct import Struct
from typing import Final, NamedTuple

from agent.addresses.pending import Pending
from bpf.maps import BpfMap

_TAIL: Final = Struct(">HH")
"""Claimant and generation, after the value."""

OF_NODES: Final = 0
PLAIN: Final = 1
"""Ranks: what a node says of an address goes before what its cluster's address facts say."""


def claimant(cluster_id: int, *, rank: int) -> int:
    """A number for the facts of one kind of one cluster."""
    return cluster_id << 1 | rank


class Claim(NamedTuple):
    """A claim on a key, spelled out."""

    cluster_id: int
    rank: int
    value: bytes


Batches = Iterator[Sequence[bytes]]
"""Keys, some at a time."""

BATCH: Final = 2048
"""Claims that are looked at between two yields to the loop."""


class _Leaving(NamedTuple):
    keys: Batches
    stale_only: bool


class _Turn(NamedTuple):
    """From one set of held clusters to the next, key by key."""

    held: AbstractSet[int]
    keys: Batches
    done: set[bytes]


class Book:
    """Claims on the keys of one map, and the entries that follow from them.

    The own cluster's claims win, then those of lower cluster ids; within a cluster those of
    nodes. One claimant has at most one claim on a key.
    """

    def __init__(self, target: BpfMap, own_id: int, *, batch: int = BATCH) -> None:
        self.pending = Pending(target, self.wanted)
        """What is to be written."""
        self._own_id = own_id
        self._batch = batch
        self._size = target.value_size
        self._claims: dict[bytes, bytes] = {}
        """By key: the best claim, as value + claimant + generation."""
        self._others: dict[bytes, dict[int, bytes]] = {}
        """By key, then claimant: the claims that wait."""
        self._counts: dict[int, int] = {}
        self._generations: dict[int, int] = {}
        self._doubtful: dict[int, int] = {}
        """By claimant: claims of an earlier generation."""
        self._leaving: dict[int, _Leaving] = {}
        """By claimant: claims that are to be let go, some at a time."""
        self._gone: list[bytes] = []
        """Keys of claims that had to be let go at once."""
        self._held: AbstractSet[int] = frozenset()
        """Clusters whose claims are left out of account."""
        self._aim: AbstractSet[int] = frozenset()
        """The same at the end of all turns."""
        self._turn: _Turn | None = None
        self._then_hold: frozenset[int] | None = None

    # -- claims ----------------------------------------------------------------------------------

    def state(self, key: bytes, who: int, value: bytes | None) -> bool:
        """``claim``, or ``release`` for None. Whether that changes what is wanted."""
        return self.release(key, who) if value is None else self.claim(key, who, value)

    def claim(self, key: bytes, who: int, value: bytes) -> bool:
        """``who`` wants the key to have this value. Whether that changes what is wanted."""
        if self._leaving and who in self._leaving and not self._leaving[who].stale_only:
            self._let_all_go(who)
        new = value + _TAIL.pack(who, self._generations.get(who, 0))
        old = self._claims.get(key)
        if old == new:
            return False
        before = self.wanted(key)
        if old is None:
            self._claims[key] = new
            self._counts[who] = self._counts.get(who, 0) + 1
        elif _who(old) == who:
            self._claims[key] = new
            self._renewed(who, old, new)
        else:
            self._contest(key, who, old, new)
        return self._compare(key, before)

    def _renewed(self, who: int, old: bytes, new: bytes) -> None:
        if _generation(old) != _generation(new):
            self._doubtful[who] -= 1

    def _contest(self, key: bytes, who: int, first: bytes, new: bytes) -> None:
        """Two or more want the key."""
        claims = self._others.setdefault(key, {})
        claims[_who(first)] = first
        old = claims.get(who)
        claims[who] = new
        if old is None:
            self._counts[who] = self._counts.get(who, 0) + 1
        else:
            self._renewed(who, old, new)
        self._elect(key, claims)

    def _elect(self, key: bytes, claims: dict[int, bytes]) -> None:
        """The best of the claims wins, the others wait."""
        self._claims[key] = claims.pop(min(claims, key=self._standing))
        if not claims:
            self._others.pop(key, None)

    def _standing(self, who: int) -> tuple[bool, int]:
        return who >> 1 != self._own_id, who

    def release(self, key: bytes, who: int) -> bool:
        """``who`` wants nothing with the key any more. Whether that changes what is wanted."""
        first = self._claims.get(key)
        if first is None:
            return False
        before = self.wanted(key)
        old = self._take_back(key, who, first)
        if old is None:
            return False
        self._counts[who] -= 1
        if _generation(old) != self._generations.get(who, 0):
            self._doubtful[who] -= 1
        return self._compare(key, before)

    def _take_back(self, key: bytes, who: int, first: bytes) -> bytes | None:
        others = self._others.get(key, {})
        if _who(first) != who:
            old = others.pop(who, None)
            if not others:
                self._others.pop(key, None)
            return old
        if others:
            self._elect(key, others)
        else:
            del self._claims[key]
        return first

    def _compare(self, key: bytes, before: bytes | None) -> bool:
        """Whether what is wanted is not what was wanted ``before``; if so, it will be written.
        Within a turn that may already be so of what is wanted at its end."""
        turn = self._turn
        if turn is not None:
            turn.done.add(key)
        wanted = self.wanted(key)
        if wanted == before:
            return turn is not None
        self.pending.change(key, before, wanted)
        return True

    def wanted(self, key: bytes) -> bytes | None:
        """The value that the key should have; None: it should not be there."""
        first = self._claims.get(key)
        if first is None:
            return None
        turn = self._turn
        held = turn.held if turn is not None and key in turn.done else self._held
        if not held or _who(first) >> 1 not in held:
            return first[: self._size]
        waiting = self._waiting(key, held)
        return waiting[: self._size] if waiting is not None else None

    def _waiting(self, key: bytes, held: AbstractSet[int]) -> bytes | None:
        """The best of the claims that wait for a key and are not left out."""
        claims = self._others.get(key, {})
        free = [who for who in claims if who >> 1 not in held]
        return claims[min(free, key=self._standing)] if free else None

    def claim_of(self, key: bytes) -> Claim | None:
        """The best claim on a key, of those that are not to be left out."""
        claim = self._claims.get(key)
        if claim is not None and self._aim and _who(claim) >> 1 in self._aim:
            claim = self._waiting(key, self._aim)
        if claim is None:
            return None
        who = _who(claim)
        return Claim(who >> 1, who & 1, claim[: self._size])

    def all_keys(self) -> Batches:
        """Every key that somebody wants now."""
        keys = list(self._claims)
        size = self._batch
        return (keys[start : start + size] for start in range(0, len(keys), size))

    def __len__(self) -> int:
        return len(self._claims)

    def count(self, who: int) -> int:
        """How many keys a claimant wants."""
        return self._counts.get(who, 0)

    def keys_of(self, whos: AbstractSet[int]) -> Batches:
        """Keys that any of these claimants wants now. All claims are looked at, bit by bit, and
        what is no longer claimed by then may be left out."""
        tails = frozenset(who.to_bytes(2, "big") for who in whos)
        start, end = self._size, self._size + 2
        for keys in self.all_keys():
            yield [
                key
                for key in keys
                if self._claims.get(key, b"")[start:end] in tails
                or (key in self._others and not whos.isdisjoint(self._others[key]))
            ]

    def contested(self) -> Iterator[tuple[bytes, int, list[int]]]:
        """Keys that several want: who has it, and who waits."""
        for key, waiting in self._others.items():
            yield key, _who(self._claims[key]), sorted(waiting)

    # -- full lists --------------------------------------------------------------------------------

    def doubt(self, who: int) -> None:
        """Every claim may be out of date until it is made again."""
        self._let_all_go(who)
        if self._counts.get(who):
            self._generations[who] = (self._generations.get(who, 0) + 1) & 0xFFFF
            self._doubtful[who] = self._counts[who]

    def confirm(self, who: int) -> None:
        """A full list has been told: claims that were not made again are to be let go."""
        if self._doubtful.get(who):
            self._leave(who, self.keys_of({who}), stale_only=True)

    def drain(self, cluster_id: int) -> None:
        """The cluster wants nothing any more, and what an earlier run left of it goes."""
        for who in (claimant(cluster_id, rank=rank) for rank in (OF_NODES, PLAIN)):
            if self._counts.get(who):
                self._leave(who, self.keys_of({who}), stale_only=False)
        self.pending.prune(cluster_id)

    def _leave(self, who: int, keys: Batches, *, stale_only: bool) -> None:
        self._let_all_go(who)
        self._leaving[who] = _Leaving(keys, stale_only)

    @property
    def leaving(self) -> bool:
        """Whether there are claims to be let go."""
        return bool(self._leaving or self._gone)

    def let_go(self) -> list[bytes]:
        """Release some of the claims that are to be let go; keys for which that changed what is
        wanted. A large cluster's last hour must not hold up the others."""
        gone, self._gone = self._gone, []
        who = next(iter(self._leaving), None)
        return gone if who is None else gone + self._let_some_go(who)

    def _let_some_go(self, who: int) -> list[bytes]:
        leaving = self._leaving[who]
        keys = next(leaving.keys, None)
        if keys is None:
            del self._leaving[who]
            return []
        if leaving.stale_only:
            keys = [key for key in keys if self._is_stale(key, who)]
        return [key for key in keys if self.release(key, who)]

    def _is_stale(self, key: bytes, who: int) -> bool:
        """Whether the claim has not been made again since it was doubted."""
        first = self._claims.get(key, b"")
        claim = first if first and _who(first) == who else self._others.get(key, {}).get(who, b"")
        return bool(claim) and _generation(claim) != self._generations.get(who, 0)

    def _let_all_go(self, who: int) -> None:
        """Before anything else is said about them."""
        while who in self._leaving:
            self._gone += self._let_some_go(who)

    # -- clusters that are held out ----------------------------------------------------------------

    def hold(self, cluster_ids: AbstractSet[int]) -> None:
        """Claims of exactly these clusters are left out of account, bit by bit (``turn_some``);
        what is not done with yet is done first.
        """
        self._aim = cluster_ids
        if self.turning:
            self._then_hold = frozenset(cluster_ids)
            return
        changed = cluster_ids ^ self._held
        whos = {claimant(c, rank=rank) for c in changed for rank in (OF_NODES, PLAIN)}
        self._turn = _Turn(frozenset(cluster_ids), self.keys_of(whos), set())

    @property
    def turning(self) -> bool:
        """Whether claims are still to be left out, or to be heeded again."""
        return self._turn is not None

    def turn_first(self, most: int) -> None:
        """What would be written next is held, or heeded, before all others: a cluster that is left
        out is not written only to be removed again."""
        if self._turn is not None:
            for key in self.pending.next_puts(most):
                if key not in self._turn.done:
                    self._compare(key, self.wanted(key))

    def turn_some(self) -> None:
        """Leave some out, or heed them again."""
        turn = self._turn
        if turn is None:
            return
        keys = next(turn.keys, None)
        if keys is None:
            self._held, self._turn = turn.held, None
            if (then := self._then_hold) is not None:
                self._then_hold = None
                self.hold(then)
            return
        for key in keys:
            if key not in turn.done:
                self._compare(key, self.wanted(key))


def _who(claim: bytes) -> int:
    return claim[-4] << 8 | claim[-3]


def _generation(claim: bytes) -> int:
    return claim[-2] << 8 | claim[-1]
