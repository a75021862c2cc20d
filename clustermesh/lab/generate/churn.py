"""What happens in a generated world: a story of changes at given rates, by a seed. No I/O."""

from collections.abc import Iterator, Sequence
from random import Random
from typing import Final

import msgspec

from clustermesh.keys import Kind
from clustermesh.lab.generate.world import Cluster

GONE: Final = 0.25
"""How many changes take something away; the next change of the same object brings it back."""


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Changes per second, in all clusters together."""

    nodes: float = 5.0
    identities: float = 20.0
    endpoints: float = 160.0
    services: float = 20.0

    def total(self) -> float:
        """Of every kind."""
        return self.nodes + self.identities + self.endpoints + self.services

    def scaled(self, total: float) -> "Rates":
        """The same mixture at another speed."""
        by = total / self.total()
        return Rates(
            nodes=self.nodes * by,
            identities=self.identities * by,
            endpoints=self.endpoints * by,
            services=self.services * by,
        )


class Change(msgspec.Struct, frozen=True, gc=False):
    """At ``at`` seconds an object of a cluster gets a value, or is gone (None)."""

    at: float
    cluster: Cluster
    kind: Kind
    name: str
    value: bytes | None


def story(clusters: Sequence[Cluster], rates: Rates, *, seed: int) -> Iterator[Change]:
    """Changes for ever, evenly spaced."""
    random = Random(seed)  # noqa: S311  # a world, no secret
    versions: dict[tuple[int, Kind, int], int] = {}
    absent: set[tuple[int, Kind, int]] = set()
    share = {
        Kind.NODES: rates.nodes,
        Kind.IDENTITIES: rates.identities,
        Kind.IPS: rates.endpoints,
        Kind.SERVICES: rates.services,
    }
    kinds = [kind for kind in share if share[kind] > 0 and clusters[0].count(kind)]
    weights = [share[kind] for kind in kinds]
    step, moment = 1.0 / sum(weights), 0.0
    while True:
        (kind,) = random.choices(kinds, weights)
        cluster = random.choice(clusters)
        at = random.randrange(cluster.count(kind))
        what = (cluster.id, kind, at)
        present = what not in absent
        version = versions[what] = versions.get(what, 0) + 1
        name, value = cluster.entry(kind, at, version)
        goes = present and (kind is Kind.IDENTITIES or random.random() < GONE)
        if goes:
            absent.add(what)
        else:
            absent.discard(what)
        yield Change(moment, cluster, kind, name, None if goes else value)
        moment += step
