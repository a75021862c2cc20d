"""Nodes of every cluster: their entries in the address maps, and whose ranges have changed."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from agent.addresses.book import OF_NODES, Book, claimant
from agent.addresses.entries import IPCACHE, NodeInfo, Place, node_entries
from agent.addresses.own_ranges import OwnRanges
from agent.clusters import Clusters
from agent.facts import Change, Me
from agent.known import Known
from agent.ownership import Ownership
from clustermesh.model import Node

Names = dict[str, None]
"""In order, each once."""


class Nodes:
    """Owner of all that is known about nodes.

    ``books`` are the address maps by name; ``on_address`` is told the ipcache keys whose entries
    are others than before.
    """

    def __init__(
        self,
        books: Mapping[str, Book],
        me: Me,
        clusters: Clusters,
        on_address: Callable[[bytes], None],
    ) -> None:
        self.known: Known[NodeInfo] = Known()
        self.own = OwnRanges()
        """What the own cluster's nodes announce."""
        self._books = books
        self._me = me
        self._clusters = clusters
        self._moved: dict[str, Names] = {}
        """By cluster: nodes whose ranges, or where they lead, may not be what they were."""
        self._early: dict[str, Names] = {}
        """The same of clusters whose first list is being told; that is judged as a whole."""
        self._reached: dict[tuple[str, str], str] = {}
        """By cluster and name: nodes that may have another overlay address than this; empty: had
        none."""
        self._on_address = on_address
        self._owners: dict[str, Ownership[Place]] = {}
        """By cluster: which of its nodes has an entry that several name."""

    def apply(self, cluster: str, changes: Sequence[Change]) -> None:
        """New nodes, and nodes that are gone."""
        for name, fact in changes:
            if isinstance(fact, Node):
                self._put(cluster, name, NodeInfo.of(fact))
            else:
                self._put(cluster, name, None)

    def _put(self, cluster: str, name: str, node: NodeInfo | None) -> None:
        before = self.known.of(cluster).get(name)
        if node is None:
            self.known.drop(cluster, name)
        else:
            self.known.put(cluster, name, node)
        if before == node:
            return
        self._note(cluster, name, before, node)
        self._enter(cluster, name, before, node)

    def _note(
        self, cluster: str, name: str, before: NodeInfo | None, node: NodeInfo | None
    ) -> None:
        """Who else has to look at it."""
        if cluster == self._me.cluster:
            self.own.change(_cidrs(before), _cidrs(node))
        elif _overlay(before) != _overlay(node):
            self._reached.setdefault((cluster, name), _overlay(before))
        if _ranges(before) != _ranges(node):
            early = self._clusters.awaits_nodes(cluster)
            names = self._early if early else self._moved
            names.setdefault(cluster, {})[name] = None

    def _enter(
        self, cluster: str, name: str, before: NodeInfo | None, node: NodeInfo | None
    ) -> None:
        old = node_entries(before, self._me) if before is not None else {}
        new = node_entries(node, self._me) if node is not None else {}
        owners = self._owners.setdefault(cluster, Ownership())
        owners.claim(name, new)
        known = self.known.of(cluster)
        who = claimant((node or before or _NOBODY).cluster_id, rank=OF_NODES)
        for place in old.keys() | new.keys():
            owner = owners.owner(place)
            book, key = self._books[place[0]], place[1]
            value = new.get(place) if owner == name else None
            if owner is not None and owner != name:
                value = node_entries(known[owner], self._me)[place]
            if book.state(key, who, value) and place[0] == IPCACHE:
                self._on_address(key)

    def confirm(self, cluster: str) -> None:
        """A full list has been told: nodes that it did not repeat are gone."""
        for name in self.known.confirm(cluster):
            self._put(cluster, name, None)

    def settle(self) -> None:
        """Perhaps a first list has been told, or is waited for no more."""
        for cluster in [it for it in self._early if not self._clusters.awaits_nodes(it)]:
            self.again(cluster, self._early.pop(cluster))

    def drain(self, cluster: str) -> None:
        """The cluster has no nodes any more; their entries are the books' to drain."""
        gone = self.known.drain(cluster)
        for name, node in gone.items():
            self._note(cluster, name, node, None)
        # Those of a first list may have been judged with what was left of an earlier life.
        self.again(cluster, {**self._early.pop(cluster, {}), **gone})
        self._owners.pop(cluster, None)

    # -- who has to be looked at ------------------------------------------------------------------

    @property
    def moved(self) -> bool:
        """Whether there are nodes whose ranges have to be looked at."""
        return bool(self._moved)

    def again(self, cluster: str, names: Iterable[str]) -> None:
        """Look at the ranges of these nodes."""
        if found := dict.fromkeys(names):
            self._moved.setdefault(cluster, {}).update(found)

    def take(self, most: int) -> Iterator[tuple[str, str, NodeInfo | None]]:
        """Some whose ranges may have changed: cluster, name, and the node as it is now."""
        for _ in range(most):
            if not self._moved:
                return
            cluster, names = next(iter(self._moved.items()))
            name, _ = names.popitem()
            if not names:
                del self._moved[cluster]
            yield cluster, name, self.known.of(cluster).get(name)

    def take_reached(self) -> Iterator[tuple[str, str, str]]:
        """Remote nodes that have another overlay address than when this was asked last: cluster,
        name, and the address, empty when there is none."""
        reached, self._reached = self._reached, {}
        for (cluster, name), before in reached.items():
            now = _overlay(self.known.of(cluster).get(name))
            if now != before:
                yield cluster, name, now

    def remote(self) -> Iterator[NodeInfo]:
        """Nodes of other clusters."""
        return (node for cluster, _, node in self.known.items() if cluster != self._me.cluster)


_NOBODY = NodeInfo("", "", 0, "", "", (), (), (), (), ())


def _ranges(node: NodeInfo | None) -> tuple[object, ...]:
    if node is None:
        return ()
    return node.cidrs, node.underlay4, node.addresses, node.overlay, node.cluster_id


def _cidrs(node: NodeInfo | None) -> tuple[str, ...]:
    return node.cidrs if node is not None else ()


def _overlay(node: NodeInfo | None) -> str:
    return node.overlay[0] if node is not None and node.overlay else ""
