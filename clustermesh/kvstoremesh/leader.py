"""One of several replicas writes the cache: whose name is in a key of the etcd that holds it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Final

import structlog

from kvstore.client import Batch, Conflict, Entry, Page, Point, PutOp, Store, StoreError, WriteOp
from kvstore.events import Delete, Put, Synced
from kvstore.group import Grouping
from kvstore.watch import ending, follow

log = structlog.get_logger()
KEY: Final = "clustermesh/kvstoremesh/v1/leader"
RETRY: Final = 0.2  # seconds between two tries to make sure that we still lead


class Leadership:
    """Holds the key, or waits for it. ``name`` tells this replica from the others.

    A replica that cannot reach the etcd stops writing when its lease may have ended, and goes on
    when it turns out that nobody took over.
    """

    def __init__(self, store: Store, *, name: str, ttl: float, told: Callable[[str], None]) -> None:
        self._store = store
        self._name = name
        self._ttl = ttl
        self._told = told
        self._lease = 0
        self._until = 0.0
        self._sure = asyncio.Event()
        self.leads = False

    async def lead(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Do the work whenever it is ours to do; for ever. Another's turn cancels it."""
        while True:
            await self._acquire()
            self.leads = True
            self._told("leading")
            log.info("leading", replica=self._name)
            try:
                async with asyncio.TaskGroup() as tasks:
                    working = tasks.create_task(work(), name="leader's work")
                    await self._hold()
                    working.cancel()
            except asyncio.CancelledError:
                await self._resign()
                raise
            finally:
                self.leads = False
                self._sure.clear()
            log.warning("another replica leads", replica=self._name)

    async def mine(self) -> None:
        """Return when it is certain that this replica leads."""
        while asyncio.get_running_loop().time() >= self._until:
            self._sure.clear()
            await self._sure.wait()

    async def _acquire(self) -> None:
        while True:
            try:
                await self._claim()
            except Conflict:
                await self._vacancy()
            except StoreError as error:
                self._told(f"the own etcd does not answer: {error}")
                await asyncio.sleep(RETRY)
            else:
                return

    async def _claim(self) -> None:
        """Write our name where none is, or where ours is since an earlier life."""
        began = asyncio.get_running_loop().time()
        lease = await self._store.grant(self._ttl)
        found = await self._store.get(KEY)
        mine = PutOp(KEY, self._name.encode(), lease)
        if found is not None and found.value != mine.value:
            await self._store.revoke(lease)
            raise Conflict(f"{found.value.decode(errors='replace')} leads")
        await self._store.swap(mine, expected=found.revision if found else 0)
        self._lease = lease
        self._certain(began)

    def _certain(self, began: float) -> None:
        self._until = began + self._ttl
        self._sure.set()

    async def _hold(self) -> None:
        """Renew; return when somebody else leads."""
        pause = self._ttl / 3
        while True:
            await asyncio.sleep(pause)
            try:
                async with asyncio.timeout(self._ttl):
                    await self._renew()
                pause = self._ttl / 3
            except Conflict:
                return
            except (StoreError, TimeoutError):
                pause = min(RETRY, self._ttl / 3)

    async def _renew(self) -> None:
        began = asyncio.get_running_loop().time()
        if await self._store.keep_alive(self._lease) > 0 and await self._is_named():
            self._certain(began)
        else:
            await self._claim()

    async def _is_named(self) -> bool:
        """Whether the key is there and ours: an etcd may be wiped or restored under our feet."""
        found = await self._store.get(KEY)
        return found is not None and (found.value, found.lease) == (
            self._name.encode(),
            self._lease,
        )

    async def _vacancy(self) -> None:
        """Return when the key is gone."""
        named = False
        async with ending(follow(self._store, KEY)) as story:
            async for events in story:
                for event in events:
                    match event:
                        case Put(_, value):
                            named = True
                            leader = value.decode(errors="replace")
                            self._told(f"{leader} leads; this replica takes over if it ends")
                        case Delete():
                            named = False
                    if isinstance(event, Synced | Delete) and not named:
                        return

    async def _resign(self) -> None:
        """Let another replica lead at once."""
        try:
            async with asyncio.timeout(1.0):
                await self._store.revoke(self._lease)
        except (StoreError, TimeoutError):
            return  # the lease ends by itself


class Fenced:
    """A ``Store`` that writes only while this replica leads; reading is free.

    What the copies of several clusters have to write at the same time is written together.
    """

    def __init__(self, store: Store, leadership: Leadership) -> None:
        self._store = store
        self._leadership = leadership
        self._grouping = Grouping(self._commit)

    @property
    def cluster_id(self) -> int:
        """As the other says."""
        return self._store.cluster_id

    @property
    def connections(self) -> int:
        """As the other says."""
        return self._store.connections

    async def connected(self, *, beyond: int) -> int:
        """As the other says."""
        return await self._store.connected(beyond=beyond)

    async def get(self, key: str) -> Entry | None:
        """As the other says."""
        return await self._store.get(key)

    def pages(self, prefix: str) -> AsyncIterator[Page]:
        """As the other says."""
        return self._store.pages(prefix)

    def changes(self, prefix: str, *, after: int | Point) -> AsyncIterator[Batch]:
        """As the other says."""
        return self._store.changes(prefix, after=after)

    async def commit(self, ops: Sequence[WriteOp]) -> int:
        """When it is ours to do."""
        return await self._grouping.commit(ops)

    async def _commit(self, ops: Sequence[WriteOp]) -> int:
        await self._leadership.mine()
        return await self._store.commit(ops)

    async def create(self, op: PutOp) -> int:
        """When it is ours to do."""
        await self._leadership.mine()
        return await self._store.create(op)

    async def swap(self, op: PutOp, *, expected: int) -> int:
        """When it is ours to do."""
        await self._leadership.mine()
        return await self._store.swap(op, expected=expected)

    async def grant(self, ttl: float) -> int:
        """When it is ours to do."""
        await self._leadership.mine()
        return await self._store.grant(ttl)

    async def keep_alive(self, lease: int) -> float:
        """When it is ours to do."""
        await self._leadership.mine()
        return await self._store.keep_alive(lease)

    async def revoke(self, lease: int) -> None:
        """When it is ours to do."""
        await self._leadership.mine()
        await self._store.revoke(lease)
