"""The store as the rest of the program sees it: protocols, and the few words for failure."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

import msgspec

from kvstore.events import Change, Put


class StoreError(Exception):
    """What can go wrong with a store. Each subclass says what the caller does next."""


class Unavailable(StoreError):
    """No answer now; what is known stays good: resume later."""


class HistoryLost(StoreError):
    """The past cannot be continued (compacted, restored, or another etcd answered): list again."""


class OtherPast(HistoryLost):
    """Not compacted: another etcd answers, or this one was wiped or restored from a backup.

    What it holds now may lack what its writers still know, until they notice.
    """


class Denied(StoreError):
    """The store knows us and says no: a role is missing, or the certificate's name is unknown."""


class Conflict(StoreError):
    """A condition of a write did not hold: somebody else was there first."""


class LeaseGone(Conflict):
    """The lease a write names has ended: grant another, write again."""


class Refused(StoreError):
    """This request will never be taken as it stands (too large, malformed): leave it out."""


Entry = Put
"""One key as it stands. It is told to followers as it is: a list of a million makes each once."""


class Point(msgspec.Struct, frozen=True):
    """Where a watch can go on: a revision, and the past in which it is one.

    ``past`` is the store's own business. None: it is not known, and the number is taken at its
    word.
    """

    revision: int
    past: object = None


class Page(msgspec.Struct, frozen=True):
    """Part of a listing; every page of one listing carries the same (the first page's) revision."""

    entries: Sequence[Entry]
    revision: int
    past: object = None

    @property
    def point(self) -> Point:
        """Where the listing ends and a watch begins."""
        return Point(self.revision, self.past)


class Batch(msgspec.Struct, frozen=True):
    """Whole revisions of a watch. Without events it is a progress mark."""

    events: Sequence[Change]
    revision: int
    past: object = None

    @property
    def point(self) -> Point:
        """Where to go on after it."""
        return Point(self.revision, self.past)


class PutOp(msgspec.Struct, frozen=True, gc=False):
    """Write a key; ``lease`` 0 for none."""

    key: str
    value: bytes
    lease: int = 0


class DeleteOp(msgspec.Struct, frozen=True, gc=False):
    """Remove a key; removing what is not there succeeds."""

    key: str


class DeletePrefixOp(msgspec.Struct, frozen=True, gc=False):
    """Remove every key under a prefix."""

    prefix: str


WriteOp = PutOp | DeleteOp | DeletePrefixOp


class Reader(Protocol):
    """Reading side. Raises ``Unavailable``, ``HistoryLost`` or ``Denied``."""

    async def get(self, key: str) -> Entry | None:
        """The key as it stands, or None."""
        ...

    def pages(self, prefix: str) -> AsyncIterator[Page]:
        """All keys under the prefix, page by page, pinned to one revision. At least one page."""
        ...

    def changes(self, prefix: str, *, after: int | Point) -> AsyncIterator[Batch]:
        """Every change under the prefix later than ``after``, for ever, in order.

        Raises ``OtherPast`` when ``after`` is a point of another past than the store's.

        A store whose watch takes time to stand yields a first, empty batch when it does.
        """
        ...


@runtime_checkable
class Looking(Protocol):
    """A reader who looks for many at once. Raises what a ``Reader`` does."""

    async def look(self, key: str, *, within: float) -> tuple[Entry | None, float]:
        """The key as it stood at most ``within`` seconds ago, or None; and the seconds that it took
        to find out, whoever did.
        """
        ...


class Writer(Protocol):
    """Writing side. Raises ``Unavailable``, ``Denied``, ``Conflict`` or ``Refused``."""

    async def commit(self, ops: Sequence[WriteOp]) -> int:
        """At most 128 operations on distinct keys in one transaction; the revision it made."""
        ...

    async def create(self, op: PutOp) -> int:
        """Put only when the key is absent, else ``Conflict``."""
        ...

    async def swap(self, op: PutOp, *, expected: int) -> int:
        """Put only when the key last changed at ``expected`` (0: absent), else ``Conflict``."""
        ...

    async def grant(self, ttl: float) -> int:
        """A new lease of ``ttl`` seconds; its id."""
        ...

    async def keep_alive(self, lease: int) -> float:
        """Renew once; the seconds that remain, 0 when the lease is gone."""
        ...

    async def revoke(self, lease: int) -> None:
        """End the lease and its keys; ending what is gone succeeds."""
        ...


class Store(Reader, Writer, Protocol):
    """Both sides, and who answers."""

    @property
    def cluster_id(self) -> int:
        """The id of the etcd that answered first on this connection, 0 before any answer."""
        ...

    @property
    def connections(self) -> int:
        """How often a connection came up. A step up means: verify what you believe is stored."""
        ...

    async def connected(self, *, beyond: int) -> int:
        """Wait until ``connections`` is greater than ``beyond``; its value then."""
        ...


Opened = AbstractAsyncContextManager[Store]
