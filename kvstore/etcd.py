"""A store that is an etcd v3: the protocols of ``client`` over one connection that is kept up."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from operator import attrgetter
from random import Random

from kvstore._proto import etcd_pb2 as rpc
from kvstore.client import (
    Batch,
    Conflict,
    DeleteOp,
    Entry,
    HistoryLost,
    Page,
    Point,
    PutOp,
    Refused,
    Unavailable,
    WriteOp,
)
from kvstore.config import EtcdConfig
from kvstore.dial import Connector
from kvstore.events import shown
from kvstore.limits import Limiter, Waited
from kvstore.lists import Listing, after_prefix, entry, to_bytes
from kvstore.stream import Lagging
from kvstore.wire import GRANT, KEEP_ALIVE, RANGE, REVOKE, TXN, Method, Q, R
from kvstore.witness import Witness, verify

MAX_OPS = 128
"""What a server allows in one transaction unless told otherwise (``--max-txn-ops``)."""


class EtcdStore:
    """One etcd, with limits of its own, by a connection that somebody keeps up (``open_etcd``)."""

    def __init__(self, config: EtcdConfig, connector: Connector) -> None:
        self.config = config
        self._connector = connector
        self._limiter = Limiter(
            rate=config.qps,
            bootstrap_rate=max(config.qps, config.bootstrap_qps),
            inflight=config.max_inflight,
        )

    @property
    def cluster_id(self) -> int:
        """The id of the etcd on this connection, or on the last one; 0 before any."""
        return self._connector.cluster_id

    @property
    def connections(self) -> int:
        """How often a connection came up."""
        return self._connector.connections

    async def connected(self, *, beyond: int) -> int:
        """Wait for a connection later than number ``beyond``."""
        return await self._connector.connected(beyond=beyond)

    def status_text(self) -> str:
        """One line for an operator: which etcd answers, or why none does and the next try."""
        live = self._connector.live
        if live is None:
            return f"etcd: not connected: {self._connector.trouble or 'connecting'}"
        version = live.version or "unknown"
        return f"etcd: connected to {live.name}, version {version}, ID: {live.cluster_id:016x}"

    def reconnect(self, reason: str) -> None:
        """Leave this connection for the next endpoint, since ``reason`` (a heartbeat that stopped,
        say).
        """
        self._connector.drop(reason)

    @property
    def waited(self) -> Waited:
        """What operations waited because of the rate limit."""
        return self._limiter.waited

    def bootstrapped(self) -> None:
        """The first synchronisation is over; the ordinary rate limit holds from now on."""
        self._limiter.bootstrapped()

    async def get(self, key: str) -> Entry | None:
        """The key as it stands, or None."""
        reply = await self._call(RANGE, rpc.RangeRequest(key=to_bytes(key)))
        return entry(reply.kvs[0]) if reply.kvs else None

    async def pages(self, prefix: str) -> AsyncIterator[Page]:
        """Slices of everything under the prefix, all of one revision."""
        link = (await self._connector.connection()).link
        newest = Entry(prefix, b"", 0)
        async with (
            self._limiter.turn(),
            aclosing(Listing(link, prefix, self.config).pages()) as all_,
        ):
            async for page in all_:
                newest = max((newest, *page.entries), key=_changed)
                witness = Witness(link.cluster_id, link.number, newest.key, newest.revision)
                yield Page(page.entries, page.revision, witness)

    async def changes(self, prefix: str, *, after: int | Point) -> AsyncIterator[Batch]:
        """Whole revisions beyond ``after``, for ever, after an empty one that says that the watch
        stands. Raises ``OtherPast`` when ``after`` belongs to another past than this etcd's.
        """
        connection = await self._connector.connection()
        reached = await verify(connection.link, prefix, after)
        if connection.link.outdated:
            connection.link.end("its token has run out")
            raise Unavailable("its token has run out")
        while True:
            async with self._limiter.turn():
                watch = connection.watches.open(prefix, after=reached)
            try:
                while True:
                    batch = await watch.next()
                    reached = batch.point
                    yield batch
            except Lagging:
                continue  # its reader has left too much unread: again from where it stopped
            finally:
                connection.watches.close(watch)

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
            raise Conflict(f"{shown(op.key)} is not what it was at revision {expected}")
        return reply.header.revision

    async def grant(self, ttl: float) -> int:
        """A new lease; etcd counts whole seconds."""
        reply = await self._write(GRANT, rpc.LeaseGrantRequest(TTL=max(1, round(ttl))))
        return reply.ID

    async def keep_alive(self, lease: int) -> float:
        """Renew a lease once; what is left of it in seconds, 0 when it is gone."""
        link = (await self._connector.connection()).link
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

    async def _call(self, method: Method[Q, R], request: Q) -> R:
        async with self._limiter.turn():
            return await (await self._connector.connection()).link.call(method, request)

    async def _write(self, method: Method[Q, R], request: Q) -> R:
        try:
            return await self._call(method, request)
        except (
            HistoryLost
        ) as error:  # another etcd took it: where a writer is concerned, this one did not answer
            raise Unavailable(str(error)) from None


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

    ``report`` is told a sentence when the connection is lost or cannot be made, and None when it is
    up again.
    """
    connector = Connector(config, report=report, random=random or Random())  # noqa: S311 - spreads load
    failure: Exception | None = None
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(connector.run(), name="etcd connection")
        try:
            yield EtcdStore(config, connector)
        except Exception as error:  # noqa: BLE001 - raised again below, as itself
            failure = error
        finally:
            serving.cancel()
    if failure is not None:
        raise failure
