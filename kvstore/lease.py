"""Leases for many keys: a thousand on each at most, so that losing one costs a thousand writes."""

from collections.abc import Iterator

from kvstore.client import Writer


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

    def __init__(self, writer: Writer, *, ttl: float, keys: int) -> None:
        self._writer = writer
        self._ttl = ttl
        self._most = keys
        self._all: dict[int, Lease] = {}
        self._of: dict[str, Lease] = {}
        self._roomy: Lease | None = None

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Lease]:
        return iter(tuple(self._all.values()))

    def due_at(self) -> float | None:
        """When the next renewal is due; None without leases."""
        return min((lease.due_at() for lease in self._all.values()), default=None)

    def find(self, key: str) -> int | None:
        """The lease for a key, from now on its own: 0 when keys live without, None when all are
        full.
        """
        if not self._ttl:
            return 0
        lease = self._of.get(key)
        if lease is None:
            lease = self._roomy
            if lease is None or len(lease.keys) >= self._most:
                return None
            lease.keys.add(key)
            self._of[key] = lease
        return lease.number

    async def grant(self, now: float) -> None:
        """One more lease, with room for new keys."""
        number = await self._writer.grant(self._ttl)
        self._roomy = self._all[number] = Lease(number, self._ttl, now)

    def release(self, key: str) -> None:
        """The key is gone; its place is free."""
        lease = self._of.pop(key, None)
        if lease is not None:
            lease.keys.discard(key)
            if len(lease.keys) < self._most // 2:
                self._roomy = lease

    async def renew(self, lease: Lease, now: float) -> bool:
        """Keep it alive; False when it has ended."""
        left = await self._writer.keep_alive(lease.number)
        lease.renewed_at = now
        return left > 0

    def lost(self, lease: Lease) -> frozenset[str]:
        """Forget a lease that ended; the keys that went with it."""
        self._all.pop(lease.number, None)
        if self._roomy is lease:
            self._roomy = None
        for key in lease.keys:
            del self._of[key]
        return frozenset(lease.keys)
