"""Leases for many keys: a thousand on each at most, so that losing one costs a thousand writes.

Keys that speak for others (*signs*: a canary) hang on leases of their own, which end first: a
writer that dies leaves no moment in which a sign stands and what it promises is gone.
"""

from collections.abc import Iterable, Iterator

from kvstore.client import Writer

SIGN_SHARE = 0.6
"""Of the time to live. Others have two thirds of it left at any time, being renewed after one."""


class Lease:
    """One lease of ours and the keys that hang on it (or will, once written)."""

    def __init__(self, number: int, ttl: float, renewed_at: float) -> None:
        self.number = number
        self.ttl = ttl
        self.renewed_at = renewed_at
        self.keys: set[str] = set()

    def due_at(self) -> float:
        """When to renew it: a third of its life after the last time."""
        return self.renewed_at + self.ttl / 3


class Leases:
    """Which key hangs on which lease. Every key keeps its lease for as long as that lives."""

    def __init__(
        self, writer: Writer, *, ttl: float, keys: int, signs: tuple[str, ...] = ()
    ) -> None:
        self._writer = writer
        self._ttl = ttl
        self._most = keys
        self._signs = signs
        self._all: dict[int, Lease] = {}
        self._of: dict[str, Lease] = {}
        self._roomy: dict[bool, Lease] = {}
        """For new keys: by whether they are signs."""
        self._due: float | None = None
        self._due_known = True

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Lease]:
        return iter(tuple(self._all.values()))

    def due_at(self) -> float | None:
        """When the next renewal is due; None without leases."""
        if not self._due_known:
            self._due = min((lease.due_at() for lease in self._all.values()), default=None)
            self._due_known = True
        return self._due

    def find(self, key: str) -> int | None:
        """The lease for a key, from now on its own: 0 when keys live without, None when all are
        full.
        """
        if not self._ttl:
            return 0
        lease = self._of.get(key)
        if lease is None:
            lease = self._roomy.get(self._is_sign(key))
            if lease is None or len(lease.keys) >= self._most:
                return None
            lease.keys.add(key)
            self._of[key] = lease
        return lease.number

    async def grant(self, key: str, now: float) -> None:
        """One more lease, with room for the key and others of its sort."""
        sign = self._is_sign(key)
        ttl = self._ttl * SIGN_SHARE if sign else self._ttl
        number = await self._writer.grant(ttl)
        self._roomy[sign] = self._all[number] = Lease(number, ttl, now)
        self._due_known = False

    async def adopt(self, number: int, keys: Iterable[str], now: float) -> bool:
        """Go on with a lease that was granted earlier; False when it has ended."""
        left = await self._writer.keep_alive(number) if number and self._ttl else 0
        if left <= 0:
            return False
        lease = self._all[number] = Lease(number, left, now)
        lease.keys.update(keys)
        self._of.update(dict.fromkeys(lease.keys, lease))
        self._due_known = False
        return True

    def release(self, key: str) -> None:
        """The key is gone; its place is free."""
        lease = self._of.pop(key, None)
        if lease is not None:
            lease.keys.discard(key)
            if len(lease.keys) < self._most // 2:
                self._roomy[self._is_sign(key)] = lease

    async def renew(self, lease: Lease, now: float) -> bool:
        """Keep it alive; False when it has ended."""
        left = await self._writer.keep_alive(lease.number)
        lease.renewed_at = now
        self._due_known = False
        return left > 0

    def lost(self, lease: Lease) -> frozenset[str]:
        """Forget a lease that ended; the keys that went with it."""
        self._all.pop(lease.number, None)
        self._roomy = {sign: one for sign, one in self._roomy.items() if one is not lease}
        self._due_known = False
        for key in lease.keys:
            del self._of[key]
        return frozenset(lease.keys)

    def _is_sign(self, key: str) -> bool:
        return key.startswith(self._signs)
