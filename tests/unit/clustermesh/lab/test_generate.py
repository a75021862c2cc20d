"""Generated clusters are what real ones would be: valid, in the same fields, the same each time."""

import json
from itertools import islice

import pytest

from clustermesh import keys
from clustermesh.keys import Kind, Layout, Origin
from clustermesh.lab.generate.churn import Rates, story
from clustermesh.lab.generate.fill import churn, fill, keys_of
from clustermesh.lab.generate.world import Cluster, Shape, clusters
from kvstore.memory import MemoryStore
from tests.support import vectors
from tests.support.store_contract import everything

SMALL = Shape(clusters=3, nodes=4, identities=20, endpoints=60, services=5, ipv6=True)
KINDS = (Kind.NODES, Kind.IDENTITIES, Kind.IPS, Kind.SERVICES)


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("most", [255, 511])
def test_every_key_passes_every_check_of_a_consumer(layout: Layout, most: int) -> None:
    shape = Shape(clusters=2, nodes=3, identities=9, endpoints=30, services=4, max_clusters=most)
    for cluster in clusters(shape):
        origin = Origin(cluster.name, cluster.id, most, layout)
        for kind in KINDS:
            prefix = keys.prefix(kind, layout, cluster.name)
            for at in range(cluster.count(kind)):
                for version in (0, 1, 77):
                    name, value = cluster.entry(kind, at, version)
                    fact = keys.decode(kind, origin, prefix + name, value)
                    assert keys.encode(fact) == value


def test_values_have_the_fields_of_recorded_ones() -> None:
    recorded = {record.key: record.value for record in vectors.records(vectors.RECORDINGS[1])}
    cluster = Cluster(SMALL, 0)
    for kind, later in ((Kind.NODES, {"NodeIdentity"}), (Kind.SERVICES, {"hostnames"})):
        prefix = f"cilium/state/{kind}/v1/"
        real = next(value for key, value in recorded.items() if key.startswith(prefix))
        fields = [name for name in json.loads(real) if name not in later]
        assert list(json.loads(cluster.entry(kind, 0)[1])) == fields
    real = recorded["cilium/state/ip/v1/default/10.1.0.10"]
    made = list(json.loads(cluster.entry(Kind.IPS, 0)[1]))
    assert made == [*json.loads(real), "K8sServiceAccount"]  # which 1.20 adds


def test_no_two_objects_of_a_world_share_a_name_or_an_address() -> None:
    for kind in (Kind.NODES, Kind.IDENTITIES, Kind.IPS):
        names = [
            (cluster.name if kind is Kind.NODES else "", name)
            for cluster in clusters(SMALL)
            for name, _ in cluster.entries(kind)
        ]
        assert len(names) == len(set(names))


def test_the_same_seed_tells_the_same_story() -> None:
    def told(seed: int) -> list[tuple[str, bytes | None]]:
        changes = islice(story(clusters(SMALL), Rates(), seed=seed), 500)
        return [(change.name, change.value) for change in changes]

    assert told(1) == told(1) != told(2)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("nodes", 70_000, "nodes: expected at most 65536"),
        ("endpoints", 1_000_000, "endpoints: expected at most 240 on each node"),
        ("clusters", 255, "do not fit into a mesh of 255"),
        ("identities", 70_000, "identities: expected at most"),
    ],
)
def test_the_impossible_is_refused(field: str, value: int, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Shape(**{field: value})


async def test_stores_are_filled_and_kept_in_motion() -> None:
    store = MemoryStore()
    world = clusters(SMALL)
    written = await fill(store, world, Layout.CACHE)
    found = {entry.key for entry in (await everything(store, ""))[0]}
    assert found == {op.key for each in world for op in keys_of(each, Layout.CACHE)} | {
        keys.HEARTBEAT
    }
    assert written == len(found)
    seen: list[float] = []
    stores = {cluster.name: store for cluster in world}
    count = await churn(
        stores,
        story(world, Rates().scaled(2000), seed=1),
        Layout.CACHE,
        seconds=0.2,
        sent=lambda batch, at: seen.extend([at] * len(batch)),
    )
    assert count == len(seen) > 100
