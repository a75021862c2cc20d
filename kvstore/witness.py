"""Is this still the same past? One remembered fact, read again, tells (see ``Witness``)."""

import msgspec

from kvstore._proto import etcd_pb2 as rpc
from kvstore.client import Batch, HistoryLost, OtherPast
from kvstore.dial import Connection
from kvstore.events import Put
from kvstore.lists import to_bytes
from kvstore.wire import RANGE, Link


class Witness(msgspec.Struct, frozen=True):
    """At revision ``at``, ``key`` had last changed at revision ``changed`` (0: was not there).

    An etcd that was wiped, or restored from a backup, answers under its old cluster id, and its
    revisions may have caught up with ours. In another history the same key would hardly have
    changed at the same revision.
    """

    cluster_id: int
    connection: int
    at: int
    key: str
    changed: int


class Witnesses:
    """What one client remembers of each prefix that it reads."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[Witness, ...]] = {}

    def listed(
        self, prefix: str, connection: Connection, revision: int, key: str, changed: int
    ) -> None:
        """A whole list was read at ``revision``; the newest of its keys is a good witness."""
        self._add(
            prefix,
            Witness(connection.link.cluster_id, connection.number, revision, key, changed),
        )

    def watched(self, prefix: str, connection: Connection, batch: Batch) -> None:
        """A batch was handed on; its last event is a good witness."""
        if batch.events:
            last = batch.events[-1]
            changed = last.revision if isinstance(last, Put) else 0
            self.listed(prefix, connection, last.revision, last.key, changed)

    async def verify(self, prefix: str, connection: Connection, after: int) -> None:
        """Raise a ``HistoryLost`` unless ``after`` is of this connection's history."""
        link = connection.link
        known = [one for one in self._of.get(prefix, ()) if one.at <= after]
        witness = known[-1] if known else Witness(link.cluster_id, 0, after, prefix, 0)
        known_here = witness.connection == connection.number and after <= link.revision
        if known_here and not link.has_token:
            return
        if witness.cluster_id != link.cluster_id:
            raise OtherPast(f"etcd {link.cluster_id:x} answers now, it was {witness.cluster_id:x}")
        try:
            changed = await self._changed(link, witness.key, after)
        except OtherPast:  # ``after`` is still to come
            raise
        except HistoryLost as error:  # ``after`` is compacted; then the present must do
            if known and await self._changed(link, witness.key, 0) != witness.changed:
                raise OtherPast(f"{error}, and nothing shows that it was ours") from None
            raise
        if known and changed != witness.changed:
            raise OtherPast(
                f"{witness.key} changed at revision {witness.changed}, now etcd says {changed}"
            )

    async def _changed(self, link: Link, key: str, at: int) -> int:
        """Which revision changed the key last, as of a revision (0: now)."""
        request = rpc.RangeRequest(key=to_bytes(key) or b"\0", revision=at, keys_only=True)
        reply = await link.call(RANGE, request)
        return reply.kvs[0].mod_revision if reply.kvs else 0

    def _add(self, prefix: str, witness: Witness) -> None:
        """Keep the last two: the newest may be of a batch that its reader did not finish with."""
        self._of[prefix] = (*self._of.get(prefix, ())[-1:], witness)
