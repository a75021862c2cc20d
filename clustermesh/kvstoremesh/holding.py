"""What the cache holds of one cluster: config first, copies, and a canary for each whole kind."""

import time
from collections.abc import Callable, Mapping

import msgspec

from clustermesh import keys
from clustermesh.apiserver.moment import stamp
from clustermesh.checks import BadFact
from clustermesh.keys import Kind
from clustermesh.kvstoremesh import places
from clustermesh.kvstoremesh.copy import Copy
from clustermesh.kvstoremesh.drain import clear
from clustermesh.model import ClusterConfig
from kvstore.backoff import Backoff
from kvstore.client import Store
from kvstore.publish import Publisher, PublishSettings


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """How much of one cluster is held (keys of a kind), and how long without us (seconds)."""

    lease_ttl: float = 900.0
    max_keys: int = 1_000_000


class Holding:
    """The keys of one cluster in the cache. ``run`` makes the wishes come true.

    Copies outlive connections. An earlier life's are adopted: a restart writes nothing that is
    there, and an unreachable source loses nothing by it.
    """

    def __init__(
        self, cluster: str, cache: Store, sizes: Sizes, *, report: Callable[[str | None], None]
    ) -> None:
        self.cluster = cluster
        self.cluster_id = 0
        """As the config in the cache says; 0 without one."""
        self.whole: set[Kind] = set()
        """Kinds whose canary is in the cache, or on its way."""
        self._cache = cache
        self._report = report
        settings = PublishSettings(lease_ttl=sizes.lease_ttl, signs=places.SIGNS)
        self.publisher = Publisher(cache, settings, report=report)
        self.copies: Mapping[Kind, Copy] = {
            kind: Copy(places.target(cluster, kind), self.publisher, limit=sizes.max_keys)
            for kind in Kind
        }

    async def run(self) -> None:
        """Publish, for ever."""
        await self.publisher.run()

    async def adopt(self, *, leaving: bool) -> None:
        """Go on with what is in the cache; ``leaving``: to remove it. Raises ``StoreError``."""
        config = keys.cluster_config(self.cluster)
        canaries, *data = places.owned(self.cluster)
        if not leaving and await self._cache.get(config) is None:
            # the rest of a removal that was cut short: nobody may read it as the copy of today
            await clear(self._cache, self.cluster, backoff=Backoff(), report=self._report)
        found = await self.publisher.adopt([config], [*data, canaries])
        for kind, copy in self.copies.items():
            copy.adopt(found)
            sign = places.canary(self.cluster, kind)
            if sign in found:
                self.whole.add(kind)
                self.publisher.synced(sign, found[sign])
        if config in found:
            try:
                self.cluster_id = keys.decode_config(found[config]).id
            except BadFact:
                return  # it is written anew as soon as the source answers

    def announce(self, config: ClusterConfig, value: bytes) -> None:
        """The cluster says this of itself, in these bytes; full lists of its kinds follow.

        Nothing that is published later comes before it. Under another id nothing is complete.
        """
        published = frozenset(places.kinds(config))
        # Without service exports there is nothing to wait for (contract kvstore 1.2).
        whole = published | {Kind.SERVICE_EXPORTS}
        renamed = self.cluster_id not in (0, config.id)
        for kind, copy in self.copies.items():
            if renamed or kind not in whole:
                self._unsign(kind)
            if kind not in published:
                copy.forget()
        self.cluster_id = config.id
        self.publisher.put(keys.cluster_config(self.cluster), places.announced(value))
        for kind in whole - published:
            self.complete(kind)

    def complete(self, kind: Kind) -> None:
        """A full list of the kind has been copied."""
        if kind not in self.whole:
            self.whole.add(kind)
            self.publisher.synced(places.canary(self.cluster, kind), stamp(time.time()))

    async def withdraw(self) -> None:
        """Take the config back; the copies stay for now."""
        self.publisher.remove(keys.cluster_config(self.cluster))
        await self.publisher.flushed()

    def _unsign(self, kind: Kind) -> None:
        if kind in self.whole:
            self.whole.discard(kind)
            self.publisher.remove(places.canary(self.cluster, kind))
