"""A store that is an etcd v3: the protocols of ``client`` over one connection that is kept up in the background."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from operator import attrgetter
from random import Random

import msgspec

from kvstore._proto import etcd_pb2 as rpc
from kvstore.client import (
    Batch,
    Conflict,
    DeleteOp,
    Entry,
    HistoryLost,
    Page,
    PutOp,
    Refused,
    Unavailable,
    WriteOp,
)
from kvstore.config import EtcdConfig
from kvstore.dial import Connector
from kvstore.events import Put
from kvstore.limits import Limiter
from kvstore.lists import Listing, after_prefix, entry, to_bytes
from kvstore.stream import Watches
from kvstore.wire import GRANT, KEEP_ALIVE, RANGE, REVOKE, TXN, Link, Method, Q, R

MAX_OPS = 128
"""What a server allows in one transaction unless told otherwise (``--max-txn-ops``)."""


class Witness(msgspec.Struct, frozen=True):
    """A fact that shows whether a past is still the same past: at revision ``at``, ``key`` had last changed at ``changed``.

    An etcd that was wiped or restored from a backup answers under its old cluster id, and its revisions may have caught
    up with ours; reading this one fact again tells it from the etcd we knew. ``changed`` is 0 for a key that was not there.
    """

    connection: int
    cluster_id: int
    at: int
    key: str
    changed: int


class EtcdStore:
    """One etcd. Made by ``open_etcd``."""

    def __init__(
        self, config: EtcdConfig, *, report: Callable[[str | None], None], random: Random
    ) -> None:
        self.config = config
        self._connector = Connector(config, report=report, random=random)
        self._limiter = Limiter(
            rate=config.qps,
            bootstrap_rate=max(config.qps, config.bootstrap_qps),
            inflight=config.max_inflight,
        )
        self._watches: Watches | None = None
        self._witnesses: dict[str, tuple[Witness, ...]] = {}

    @property
    def cluster_id(self) -> int:
        """The id of the etcd on this connection, of the last one while there is none, 0 before any."""
        return self._connector.cluster_id

    @property
    def connections(self) -> int:
        """How often a connection came up."""
        return self._connector.connections

    async def connected(self, *, beyond: int) -> int:
        """Wait for a connection later than number ``beyond``."""
        return await self._connector.connected(beyond=beyond)

    def status_text(self) -> str:
        """One line for an operator: which etcd answers, or why none does and when the next try is."""
        live = self._connector.live
        if live is None:
            return f"etcd: not connected: {self._connector.trouble or 'connecting'}"
        return f"etcd: connected to {live.name}, version {live.version}, ID: {live.cluster_id:016x}"

    def reconnect(self, reason: str) -> None:
        """Leave this connection for the next endpoint, since ``reason`` (a heartbeat that stopped, say)."""
        self._connector.drop(reason)

    def bootstrapped(self) -> None:
        """The first synchronisation is over; the ordinary rate limit holds from now on."""
        self._limiter.bootstrapped()

    async def get(self, key: str) -> Entry | None:
        """The key as it stands, or None."""
        reply = await self._call(RANGE, rpc.RangeRequest(key=to_bytes(key)))
        return entry(reply.kvs[0]) if reply.kvs else None

    async def pages(self, prefix: str) -> AsyncIterator[Page]:
        """Slices of everything under the prefix, all of one revision."""
        link = await self._connector.link()
        connection = self.connections
        async with (
            self._limiter.turn(),
            aclosing(Listing(link, prefix, self.config).pages()) as pages,
        ):
            newest, revision = Entry(prefix, b"", 0), 0
            async for page in pages:
                newest, revision = max((newest, *page.entries), key=_changed), page.revision
                yield page
            self._remember(
                prefix, Witness(connection, link.cluster_id, revision, newest.key, newest.revision)
            )

    async def changes(self, prefix: str, *, after: int) -> AsyncIterator[Batch]:
        """Whole revisions beyond ``after``, for ever; raises ``HistoryLost`` when ``after`` belongs to another past."""
        link = await self._connector.link()
        connection, watches = self.connections, self._watches
        await self._verify(link, prefix, after)
        assert watches is not None  # made before the link is shown to anybody
        async with self._limiter.turn():
            watch = watches.open(prefix, after=after)
        try:
            while True:
                batch = await watch.next()
                if batch.events:
                    last = batch.events[-1]
                    changed = last.revision if isinstance(last, Put) else 0
                    self._remember(
                        prefix,
                        Witness(connection, link.cluster_id, last.revision, last.key, changed),
                    )
                yield batch
        finally:
            watches.close(watch)

    async def commit(self, ops: Sequence[WriteOp]) -> int:
        """One transaction."""
        if len(ops) > MAX_OPS:
            raise Refused(f"{len(ops)} operations in one transaction, at most {MAX_OPS} are taken")
        reply = await self._write(TXN, rpc.TxnRequest(success=[_op(op) for op in ops]))
        return reply.header.revision

    async def create(self, op: PutOp) -> int:
        """Put when absent."""
        return await self.swap(op, expected=0)

    async def swap(self, op: PutOp, *, expected: int) -> int:
        """Put when the last change is revision ``expected``."""
        unchanged = rpc.Compare(
            target=rpc.Compare.MOD,
            result=rpc.Compare.EQUAL,
            key=to_bytes(op.key),
            mod_revision=expected,
        )
        reply = await self._write(TXN, rpc.TxnRequest(compare=[unchanged], success=[_op(op)]))
        if not reply.succeeded:
            raise Conflict(f"{op.key} is not what it was at revision {expected}")
        return reply.header.revision

    async def grant(self, ttl: float) -> int:
        """A new lease; etcd counts whole seconds."""
        reply = await self._write(GRANT, rpc.LeaseGrantRequest(TTL=max(1, round(ttl))))
        return reply.ID

    async def keep_alive(self, lease: int) -> float:
        """Renew a lease once; what is left of it in seconds, 0 when it is gone."""
        link = await self._connector.link()
        stream = link.stream(KEEP_ALIVE)
        try:
            async with asyncio.timeout(self.config.request_timeout):
                await stream.send(rpc.LeaseKeepAliveRequest(ID=lease))
                reply = await stream.receive()
        except TimeoutError:
            link.end("no answer in time")
            raise Unavailable("no answer in time") from None
        except HistoryLost as error:
            raise Unavailable(str(error)) from None
        finally:
            stream.cancel()
        return float(reply.TTL)

    async def revoke(self, lease: int) -> None:
        """End a lease and its keys."""
        try:
            await self._write(REVOKE, rpc.LeaseRevokeRequest(ID=lease))
        except Conflict:
            return  # it was gone

    async def serve(self) -> None:
        """Keep the connection and its watches; the task behind ``open_etcd``."""
        await self._connector.run(self._prepare, self._serve_link)

    def _prepare(self, link: Link) -> None:
        self._watches = Watches(link, self.config)

    async def _serve_link(self, link: Link) -> None:
        assert self._watches is not None  # made by _prepare
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self._watches.run(), name=f"watches of {link.name}")
            await link.ended()
            watching.cancel()

    async def _call(self, method: Method[Q, R], request: Q) -> R:
        async with self._limiter.turn():
            return await (await self._connector.link()).call(method, request)

    async def _write(self, method: Method[Q, R], request: Q) -> R:
        try:
            return await self._call(method, request)
        except (
            HistoryLost
        ) as error:  # another etcd took it: where a writer is concerned, this one did not answer
            raise Unavailable(str(error)) from None

    def _remember(self, prefix: str, witness: Witness) -> None:
        """Keep the last two: the newest may be of a batch that its reader has not finished with."""
        self._witnesses[prefix] = (*self._witnesses.get(prefix, ())[-1:], witness)

    async def _verify(self, link: Link, prefix: str, after: int) -> None:
        """Is ``after`` a revision of the history that this connection tells?"""
        known = [witness for witness in self._witnesses.get(prefix, ()) if witness.at <= after]
        witness = known[-1] if known else Witness(0, link.cluster_id, after, prefix, 0)
        if witness.connection == self.connections and after <= link.revision:
            return
        if witness.cluster_id != link.cluster_id:
            raise HistoryLost(
                f"etcd {link.cluster_id:x} answers now, it was {witness.cluster_id:x}"
            )
        request = rpc.RangeRequest(key=to_bytes(witness.key), revision=after, keys_only=True)
        reply = await link.call(
            RANGE, request
        )  # fails with HistoryLost when ``after`` is compacted or still to come
        changed = reply.kvs[0].mod_revision if reply.kvs else 0
        if known and changed != witness.changed:
            raise HistoryLost(
                f"{witness.key} was changed at revision {witness.changed}, now etcd says {changed}"
            )


_changed = attrgetter("revision")


def _op(op: WriteOp) -> rpc.RequestOp:
    match op:
        case PutOp(key, value, lease):
            return rpc.RequestOp(
                request_put=rpc.PutRequest(key=to_bytes(key), value=value, lease=lease)
            )
        case DeleteOp(key):
            return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=to_bytes(key)))
        case _:
            start = to_bytes(op.prefix)
            return rpc.RequestOp(
                request_delete_range=rpc.DeleteRangeRequest(
                    key=start or b"\0", range_end=after_prefix(start)
                )
            )


@asynccontextmanager
async def open_etcd(
    config: EtcdConfig,
    *,
    report: Callable[[str | None], None] = lambda _: None,
    random: Random | None = None,
) -> AsyncIterator[EtcdStore]:
    """A store that connects in the background and stays connected until the block is left.

    ``report`` is told a sentence when the connection is lost or cannot be made, and None when it is up again.
    """
    store = EtcdStore(config, report=report, random=random or Random())  # noqa: S311 - spreads load
    failure: Exception | None = None
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(store.serve(), name="etcd connection")
        try:
            yield store
        except Exception as error:  # noqa: BLE001 - raised again below, out of the group, as what it is
            failure = error
        finally:
            serving.cancel()
    if failure is not None:
        raise failure
