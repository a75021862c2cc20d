"""Keeping a set of keys true in a store: written at once when idle, in batches when busy."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from operator import attrgetter

import msgspec

from kvstore.backoff import Backoff
from kvstore.client import LeaseGone, PutOp, Refused, Store, StoreError
from kvstore.events import shown
from kvstore.lease import Leases
from kvstore.watch import Report, ending
from kvstore.wishes import Op, Wishes

ALL = float("inf")
"""A time by which every lease is due."""
RENEWALS = 8
"""Leases renewed between two transactions: a million keys hang on a thousand of them."""


class PublishSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes and seconds of a publisher; the defaults are those of contract kvstore 5.2."""

    batch_ops: int = 128
    batch_bytes: int = 1 << 20
    lease_ttl: float = 900.0
    """0: keys without a lease."""
    lease_keys: int = 1_000
    signs: tuple[str, ...] = ()
    """Prefixes of keys that speak for others: their leases end first (``lease``)."""
    first_wait: float = 0.05
    ceiling: float = 10.0
    jitter: float = 0.3
    """By how much of itself a wait may be shorter."""


class Publisher:
    """The owner of a set of keys. Callers say what is wanted, at any time and without waiting;
    ``run`` makes it so.

    Per key only the newest wish is written, wishes equal to what the store holds cost nothing, and
    keys are written in the order in which they were first wished for. What fails is tried again
    until it is so or no longer wanted; only a value that the store will never take is left out, and
    named.
    """

    def __init__(
        self,
        store: Store,
        settings: PublishSettings = PublishSettings(),  # noqa: B008 - frozen
        *,
        report: Report = lambda _: None,
    ) -> None:
        self._store = store
        self._settings = settings
        self._report = report
        self._leases = Leases(
            store, ttl=settings.lease_ttl, keys=settings.lease_keys, signs=settings.signs
        )
        self._wishes = Wishes()
        self._last: tuple[str, int] | None = None
        """The last write: its key, and its revision, 0 for a removal."""
        self._prefixes: tuple[str, ...] = ()
        self._unswept = False
        self._swept = 0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._told: str | None = None
        self._alarm: asyncio.TimerHandle | None = None
        """Goes off when a lease is due: set once for each time, not once for each write."""
        self._alarm_at: float | None = None

    @property
    def pending(self) -> int:
        """Keys whose newest wish the store has not taken yet."""
        return len(self.queued())

    def queued(self) -> Collection[str]:
        """Those keys."""
        return self._wishes.queued()

    @property
    def refused(self) -> Sequence[str]:
        """Keys whose value the store will never take (too large, say); they keep their last value
        there.
        """
        return self._wishes.refused

    def put(self, key: str, value: bytes) -> None:
        """From now on the key should have this value."""
        self._wishes.wish(key, value)
        self._stir()

    def remove(self, key: str) -> None:
        """From now on there should be no such key."""
        self._wishes.wish(key, None)
        self._stir()

    def rewrite(self, key: str) -> None:
        """Write the key once more, since somebody else changed it."""
        self._wishes.again([key])
        self._stir()

    def synced(self, key: str, value: bytes) -> None:
        """Put a canary: it is written after everything that was wished for before it."""
        self._wishes.canary(key, value)
        self._stir()

    async def flushed(self) -> None:
        """Return when every wish has come true."""
        await self._idle.wait()

    async def sweep(self, prefixes: Sequence[str]) -> int:
        """Remove what an earlier life left under the prefixes; how many keys that were.

        Call it when everything wanted has been wished for: strangers are removed. From then on the
        same is done whenever the store turns out to have another past than the one we wrote, having
        been wiped or restored.
        """
        self._prefixes, self._unswept = tuple(prefixes), True
        self._stir()
        await self._idle.wait()
        return self._swept

    async def adopt(self, keys: Sequence[str], prefixes: Sequence[str]) -> Mapping[str, bytes]:
        """Go on with what an earlier life left under these keys and prefixes: from now on it is
        wanted as it stands, and returned. Nothing is written for what hangs on a living lease.

        Call it before anything is wished for. Raises ``StoreError``; then nothing was adopted.
        """
        found = [entry for key in keys if (entry := await self._store.get(key))]
        for prefix in prefixes:
            async with ending(self._store.pages(prefix)) as pages:
                async for page in pages:
                    found += page.entries
        hang: dict[int, list[str]] = {}
        for entry in found:
            hang.setdefault(entry.lease, []).append(entry.key)
        now = asyncio.get_running_loop().time()
        loose: list[str] = []
        for lease, hanging in hang.items():
            if not await self._leases.adopt(lease, hanging, now):
                loose += hanging
        held = {entry.key: entry.value for entry in found}
        self._wishes.adopt(held)
        self._prefixes = tuple(prefixes)
        if found:
            newest = max(found, key=attrgetter("revision"))
            self._last = (newest.key, newest.revision)
        self._wishes.again(loose)
        self._stir()
        self._wake.set()  # there are leases to renew now
        return held

    async def run(self) -> None:
        """Make wishes come true, keep leases alive; for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._notice_connections(), name="publisher: new connections")
            try:
                await self._work()
            finally:
                self._silence()

    def _stir(self) -> None:
        if not self._idle.is_set():
            return  # it is awake, or about to be
        if self._wishes or self._unswept:
            self._idle.clear()
            self._wake.set()

    async def _notice_connections(self) -> None:
        while True:
            await self._store.connected(beyond=self._store.connections)
            self._wake.set()

    async def _work(self) -> None:
        settings = self._settings
        waits = Backoff(first=settings.first_wait, ceiling=settings.ceiling, jitter=settings.jitter)
        verified = self._store.connections
        while True:
            connection = self._store.connections
            try:
                if connection != verified:
                    await self._verify()
                    verified = connection
                await self._keep_alive()
                await self._write()
            except StoreError as error:
                wait = next(waits)
                self._tell(
                    f"{self.pending} keys are not published: {error}; trying again in {wait:.1f} s"
                )
                await self._pause(connection, wait)
            else:
                waits.reset()
                self._tell(self._refusals())
                await self._rest()

    async def _rest(self) -> None:
        """Wait for a wish, a new connection, or the next renewal of a lease."""
        due = self._leases.due_at()
        if due != self._alarm_at:
            self._silence()
            if due is not None:
                self._alarm = asyncio.get_running_loop().call_at(due, self._ring)
            self._alarm_at = due
        await self._wake.wait()
        self._wake.clear()

    def _ring(self) -> None:
        self._alarm_at = None
        self._wake.set()

    def _silence(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = None

    async def _pause(self, connection: int, seconds: float) -> None:
        """Wait; not longer than until a lost connection is up again."""
        try:
            async with asyncio.timeout(seconds):
                await self._store.connected(beyond=connection)
        except TimeoutError:
            return

    def _tell(self, sentence: str | None) -> None:
        if sentence != self._told:
            self._told = sentence
            self._report(sentence)

    def _refusals(self) -> str | None:
        if not self.refused:
            return None
        return f"the store does not take the values of {len(self.refused)} keys, first " + shown(
            self.refused[0]
        )

    async def _write(self) -> None:
        """Until nothing is left to do. It may always be something: leases do not wait for that."""
        while self._wishes or self._unswept:
            await self._keep_alive()
            if self._wishes:
                await self._commit(await self._take())
            else:
                self._swept = await self._compare(repair=False)
                self._unswept = False
        self._idle.set()

    async def _take(self) -> list[Op]:
        """The oldest wishes, as many as fit into a transaction; in flight from now on."""
        most, room = self._settings.batch_ops, self._settings.batch_bytes
        while not (ops := self._wishes.depart(most, room, self._leases.find)):
            now = asyncio.get_running_loop().time()
            await self._leases.grant(self._wishes.first(), now)
        return ops

    async def _commit(self, ops: Sequence[Op]) -> None:
        """Write; what the store refuses is narrowed down to the key that it refuses."""
        try:
            revision = await self._store.commit(ops)
        except Refused as error:
            if len(ops) == 1:
                self._wishes.refuse(ops[0].key)
                self._tell(f"{shown(ops[0].key)}: {error}")
                return
            await self._commit(ops[: len(ops) // 2])
            await self._commit(ops[len(ops) // 2 :])
        except LeaseGone:
            self._wishes.lost_sight()
            if not await self._keep_alive(now=ALL):
                raise  # all of ours live: trying again at once would go round for ever
        except StoreError:
            self._wishes.lost_sight()
            raise
        else:
            self._settle(ops, revision)

    def _settle(self, ops: Sequence[Op], revision: int) -> None:
        for key in self._wishes.arrived(ops):
            self._leases.release(key)
        last = ops[-1]
        self._last = (last.key, revision if isinstance(last, PutOp) else 0)

    async def _keep_alive(self, now: float | None = None) -> int:
        """Renew the leases that are due by now, some of them if there is much to write; the keys
        of those that have ended are written again. How many ended.
        """
        now = asyncio.get_running_loop().time() if now is None else now
        due = self._leases.due_at()
        if due is None or due > now:
            return 0
        ended, left = 0, len(self._leases) if now == ALL else RENEWALS
        for lease in self._leases:
            if lease.due_at() > now:
                continue
            if not left and self._wishes:
                break
            left -= 1
            if not await self._leases.renew(lease, asyncio.get_running_loop().time()):
                self._wishes.again(self._wishes.written(self._leases.lost(lease)))
                ended += 1
        return ended

    async def _verify(self) -> None:
        """On a new connection: is this the store that we wrote, with everything that we wrote in
        it?

        History is a line: when the last write is there, at its revision, every earlier one was kept
        too.
        """
        await self._keep_alive(now=ALL)
        if self._last is None:
            return
        key, revision = self._last
        found = await self._store.get(key)
        if (found.revision if found else 0) != revision:
            await self._compare(repair=True)

    async def _compare(self, *, repair: bool) -> int:
        """Wish away what is under our prefixes and not wanted; with ``repair`` also write again
        what is missing.
        """
        intact: set[str] = set()
        strangers = 0
        for prefix in self._prefixes:
            async with ending(self._store.pages(prefix)) as pages:
                async for page in pages:
                    for entry in page.entries:
                        if self._wishes.holds(entry):
                            intact.add(entry.key)
                        elif entry.key not in self._wishes:
                            self._wishes.drop(entry.key)
                            strangers += 1
        if repair:
            self._wishes.again_but(intact)
        return strangers
