"""The seam between those who learn facts (remotes, the own etcd) and the one who writes them.

Everything here is synchronous and called in the event loop of the agent. A caller hands over at
most about a thousand changes at a time and yields to the loop between calls.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from clustermesh.keys import Fact
from clustermesh.local import AnyKind, LocalKind, LocalService

__all__ = ["AnyFact", "AnyKind", "Change", "LocalKind", "Me", "Sink"]

AnyFact = Fact | LocalService

Change = tuple[str, AnyFact | None]
"""A key and what it says now; None: the key is gone.

The key is what follows the prefix of its kind (``10.7.0.44``, ``shop/cart``, ``node-a``,
``470123``), so that it is the same in the state and the cache layout.
"""


class Me(NamedTuple):
    """This node: its cluster (name, id), its name and underlay address, and the mesh's mode.

    ``native``: remote clusters to whose pods packets go without the tunnel.
    """

    cluster: str
    cluster_id: int
    node: str
    node_ip: str
    max_clusters: int = 255
    native: frozenset[str] = frozenset()


class Sink(Protocol):
    """Where facts go. What follows from them depends on the facts, not on the order of calls.

    The life of a remote cluster, in calls::

        expect({...})                 the configuration: all clusters that may have entries
        identify("paris", 7)          the handshake (or the checkpoint) tells its id
        apply, apply, ...             from a checkpoint, followed by unconfirmed("paris"),
        apply, apply, ...             or from the peer, followed by synced("paris", kind) each
        overdue("paris")              it did not sync in time: others stop waiting for it
        unsynced("paris")             the connection is lost: every fact stays
        unconfirmed("paris"), ...     connected again: full lists follow, as before
        drain("paris")                its configuration is gone (or its id changed)

    The own cluster has the same life, without ``drain``; its id is known from the start.
    """

    def expect(self, clusters: frozenset[str]) -> None:
        """The remote clusters that are configured; the own cluster is always expected.

        Until the first call nothing is pruned. A name that left the set still needs ``drain``.
        """
        ...

    def identify(self, cluster: str, cluster_id: int) -> None:
        """The cluster's id, before its first fact. To change an id, ``drain`` first."""
        ...

    def apply(self, cluster: str, kind: AnyKind, changes: Sequence[Change]) -> None:
        """New values and removals, in order. Repeating a value costs little and writes nothing."""
        ...

    def unconfirmed(self, cluster: str) -> None:
        """What was applied so far may have changed unseen, in an earlier run or during an outage:
        use it, wait for nothing else of this cluster, and let go of what the next full list
        (``synced``) of each kind does not repeat."""
        ...

    def synced(self, cluster: str, kind: AnyKind) -> None:
        """Everything of this kind that was true has been applied. A cluster tells its services in
        one of two kinds; a full list of one takes the place of the other's facts."""
        ...

    def overdue(self, cluster: str) -> None:
        """The grace for its first full list ran out: services stop waiting for it. Nothing of it
        is pruned."""
        ...

    def unsynced(self, cluster: str) -> None:
        """The connection is lost; facts stay, and nothing of the cluster is pruned until its next
        full lists."""
        ...

    def drain(self, cluster: str) -> None:
        """Forget the cluster: every entry that is there because of it goes, services first."""
        ...
