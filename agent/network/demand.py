"""What the mesh asks of the node's network, kept change by change.

All of it is copied for a complete comparison only. Of the event loop's thread alone.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Final

import msgspec

from agent.network.wanted import Facts

NOWHERE: Final = "0.0.0.0"  # noqa: S104  # the underlay address of no node


class Change(msgspec.Struct, frozen=True):
    """What is asked otherwise than at the last comparison: prefixes that are wanted now, and those
    that are not any more; all of them by way of our device."""

    wanted: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()


class Demand:
    """Owner of what is asked. ``known``: it has been said what that is; until then no route of ours
    is removed."""

    def __init__(self) -> None:
        self.known = False
        self._nodes: dict[str, str] = {}
        """By destination: the underlay address of its node."""
        self._gateways: dict[str, str] = {}
        """The same, of destinations that go without the tunnel."""
        self._peers: dict[str, int] = {}
        """By underlay address: how many destinations are behind it."""
        self._facts = Facts()
        """All the rest."""
        self._sources: Callable[[], Iterable[str]] = frozenset
        self._changed: set[str] = set()
        """Destinations that are asked otherwise than at the last comparison."""
        self._fresh: dict[str, str] = {}
        """Those that were not asked for at all then, and whose they are."""
        self._compared: dict[str, str] = {}
        """Those that are being compared for the first time."""
        self._lacking: dict[str, int] = {}
        """By cluster: how many these two are."""
        self._withdrawn: set[str] = set()
        """Those that are wanted no more, since the last comparison that left no trouble: they go,
        also while an unreachable cluster keeps us from telling which other routes are strangers."""
        self._rest = True
        """Whether more than destinations is asked otherwise."""
        self._repeopled = False
        """Whether other nodes are asked for."""

    # -- asked ------------------------------------------------------------------------------------

    def lead(self, cidr: str, node_ip: str, *, cluster: str = "", direct: bool = False) -> None:
        """The pods of this prefix are behind this node of a cluster, and reached without the tunnel
        if it is ``direct``."""
        before = self._nodes.get(cidr)
        if before is None:
            self._fresh[cidr] = cluster
            self._lacking[cluster] = self._lacking.get(cluster, 0) + 1
            self._withdrawn.discard(cidr)
            self._changed.add(cidr)
        if before != node_ip:
            self._nodes[cidr] = node_ip
            self._count(before, -1)
            self._count(node_ip, 1)
        self._direct(cidr, node_ip if direct else "")

    def leave(self, cidr: str) -> None:
        """No pods of this prefix are anywhere."""
        before = self._nodes.pop(cidr, None)
        if before is None:
            return
        self._count(before, -1)
        self._direct(cidr, "")
        self._changed.add(cidr)
        self._withdrawn.add(cidr)
        for waiting in (self._fresh, self._compared):
            if (cluster := waiting.pop(cidr, None)) is not None:
                self._arrived(cluster)

    def _direct(self, cidr: str, gateway: str) -> None:
        if self._gateways.get(cidr, "") == gateway:
            return
        self._rest = True
        if gateway:
            self._gateways[cidr] = gateway
        else:
            del self._gateways[cidr]

    def _count(self, node_ip: str | None, more: int) -> None:
        if not node_ip or node_ip == NOWHERE:
            return
        count = self._peers.get(node_ip, 0) + more
        self._repeopled |= count == 0 or count == more
        if count:
            self._peers[node_ip] = count
        else:
            del self._peers[node_ip]

    def here(self, *, overlay: tuple[str, ...], complete: bool) -> None:
        """This node's overlay addresses; and whether every cluster has told all."""
        facts = msgspec.structs.replace(self._facts, overlay=overlay, complete=complete)
        if facts != self._facts or not self.known:
            self._facts = facts
            self.known = self._rest = True

    def from_pods(self, sources: Callable[[], Iterable[str]]) -> None:
        """The own cluster's pods have other prefixes: ``sources`` tells them when asked."""
        self._sources = sources
        self._rest = True

    # -- compared ---------------------------------------------------------------------------------

    @property
    def dirty(self) -> bool:
        """Whether anything is asked otherwise than at the last comparison."""
        return self.known and (self._rest or self._repeopled or bool(self._changed))

    @property
    def urgent(self) -> bool:
        """Whether somewhere new is to be reached: that does not wait for things to settle."""
        return self.known and bool(self._fresh)

    @property
    def has_gateways(self) -> bool:
        """Whether anything goes without the tunnel."""
        return bool(self._gateways)

    @property
    def lacking(self) -> Collection[str]:
        """Clusters with destinations that are wanted now and that no comparison has ended with."""
        return self._lacking.keys()

    def only_routes(self, *, peers: bool) -> bool:
        """Whether nothing but destinations through the tunnel is asked otherwise; and ``peers``:
        other nodes, too."""
        return self.known and not self._rest and (peers or not self._repeopled)

    def change(self) -> Change:
        """What is asked otherwise, ``only_routes`` being so: that is compared now."""
        changed, self._changed = self._changed, set()
        self._repeopled = False
        self._taken()
        nodes = self._nodes
        return Change(
            tuple(it for it in changed if it in nodes),
            tuple(it for it in changed if it not in nodes),
        )

    def all(self) -> tuple[Facts, frozenset[str]]:
        """All of it, which is compared now; and which destinations are wanted no more."""
        self._changed.clear()
        self._rest = self._repeopled = False
        self._taken()
        facts = msgspec.structs.replace(
            self._facts,
            destinations=frozenset(self._nodes),
            gateways=frozenset(self._gateways.items()),
            direct=frozenset(self._gateways),
            sources=frozenset(self._sources()),
            peers=frozenset(self._peers),
        )
        return facts, frozenset(self._withdrawn)

    def _taken(self) -> None:
        self._compared.update(self._fresh)
        self._fresh.clear()

    def ended(self) -> None:
        """A comparison has ended, whatever came of it."""
        for cluster in self._compared.values():
            self._arrived(cluster)
        self._compared.clear()

    def _arrived(self, cluster: str) -> None:
        self._lacking[cluster] -= 1
        if not self._lacking[cluster]:
            del self._lacking[cluster]

    def forget(self, withdrawn: frozenset[str]) -> None:
        """Nothing is left of these."""
        self._withdrawn -= withdrawn
