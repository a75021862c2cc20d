"""Is this still the same past? One remembered fact, read again, tells (see ``Witness``)."""

import msgspec

from kvstore._proto import etcd_pb2 as rpc
from kvstore.client import HistoryLost, OtherPast, Point
from kvstore.events import Change, Put, shown
from kvstore.lists import to_bytes
from kvstore.wire import RANGE, Link


class Witness(msgspec.Struct, frozen=True):
    """At some revision, ``key`` had last changed at revision ``changed`` (0: was not there).

    An etcd that was wiped, or restored from a backup, answers under its old cluster id, and its
    revisions may have caught up with ours. In another history the same key would hardly have
    changed at the same revision. ``link`` is where that was read.
    """

    cluster_id: int
    link: int
    key: str
    changed: int

    @classmethod
    def event(cls, link: Link, event: Change) -> "Witness":
        """What an event testifies, at its revision."""
        changed = event.revision if isinstance(event, Put) else 0
        return cls(link.cluster_id, link.number, event.key, changed)


async def verify(link: Link, prefix: str, after: int | Point) -> Point:
    """``after`` as a point of this connection's history; raises a ``HistoryLost`` if it is not.

    Without a witness nothing but the number can be checked: that it is neither compacted nor still
    to come.
    """
    point = after if isinstance(after, Point) else Point(after)
    revision, witness = point.revision, point.past
    if not isinstance(witness, Witness):
        changed = await _changed(link, prefix, revision)
        return Point(revision, Witness(link.cluster_id, link.number, prefix, changed))
    if witness.link == link.number and not link.has_token:
        return point
    if witness.cluster_id != link.cluster_id:
        raise OtherPast(f"etcd {link.cluster_id:x} answers now, it was {witness.cluster_id:x}")
    try:
        changed = await _changed(link, witness.key, revision)
    except OtherPast:  # ``after`` is still to come
        raise
    except HistoryLost as error:  # ``after`` is compacted; then the present must do
        if await _changed(link, witness.key, 0) != witness.changed:
            raise OtherPast(f"{error}, and nothing shows that it was ours") from None
        raise
    if changed != witness.changed:
        raise OtherPast(
            f"{shown(witness.key)} changed at revision {witness.changed}, now etcd says {changed}"
        )
    return Point(revision, msgspec.structs.replace(witness, link=link.number))


async def _changed(link: Link, key: str, at: int) -> int:
    """Which revision changed the key last, as of a revision (0: now)."""
    request = rpc.RangeRequest(key=to_bytes(key) or b"\0", revision=at, keys_only=True)
    reply = await link.call(RANGE, request)
    return reply.kvs[0].mod_revision if reply.kvs else 0
