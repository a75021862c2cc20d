"""A source that publishes what it should not: contained, counted and reported."""

from pathlib import Path

from clustermesh import keys
from clustermesh.keys import Kind, Layout
from kvstore.client import PutOp
from tests.support.apiserver import contents, until
from tests.support.etcd import running_etcd
from tests.support.kvstoremesh import SHOP, Replica, cluster, copied, write

LARGE = ["--max-request-bytes=8000000"]
NODES = keys.prefix(Kind.NODES, Layout.STATE, "mallory")


async def test_a_hostile_source_harms_itself_alone(tmp_path: Path) -> None:
    """A value that our etcd does not take, keys of others, another's name and its id."""
    with (
        running_etcd(options=LARGE) as hostile,
        running_etcd() as honest,
        running_etcd() as cache,
        Replica(tmp_path, cache) as replica,
    ):
        await write(honest, cluster("paris", 7, SHOP))
        await write(hostile, cluster("mallory", 9, SHOP))
        await write(hostile, [PutOp(f"{NODES}huge", b"x" * 2_000_000)])
        await write(hostile, cluster("paris", 7, {Kind.NODES: {"stolen": b"mine now"}}))
        await write(hostile, [PutOp("cilium/cache/nodes/v1/paris/n1", b"mine now")])
        await write(hostile, [PutOp(f"cilium/state/ip/v1/{at}", b"") for at in range(100)])
        before = {"cilium/state/nodes/v1/home/n1": b"own"}
        await write(cache, [PutOp(key, value) for key, value in before.items()])
        replica.configure("paris", honest)
        replica.configure("mallory", hostile)
        await replica.ready()

        mallory = await replica.remote("mallory")
        assert mallory["refused-values"] == 1, mallory
        assert "huge" in mallory["status"]
        assert await copied(cache, "mallory") == SHOP
        assert await copied(cache, "paris") == SHOP
        assert (await replica.remote("paris"))["refused-values"] == 0
        held = {key: entry.value for key, entry in (await contents(cache)).items()}
        assert before.items() <= held.items()
        assert not [key for key, value in held.items() if b"mine now" in value]

        await write(hostile, [PutOp(keys.cluster_config("mallory"), CLAIM)])

        async def refused() -> bool:
            return "id 7 is that of paris" in (await replica.remote("mallory"))["status"]

        await until(refused)
        assert await copied(cache, "paris") == SHOP


CLAIM = b'{"id":7,"capabilities":{"syncedCanaries":true,"maxConnectedClusters":255}}'


async def test_too_many_keys_of_one_cluster_stop_that_cluster(tmp_path: Path) -> None:
    with (
        running_etcd() as hostile,
        running_etcd() as honest,
        running_etcd() as cache,
        Replica(tmp_path, cache) as replica,
    ):
        await write(honest, cluster("paris", 7, SHOP))
        await write(hostile, cluster("mallory", 9, SHOP))
        await write(hostile, [PutOp(f"{NODES}{at:05}", b"") for at in range(5_000)])
        replica.configure("paris", honest)
        replica.configure("mallory", hostile)
        replica.start("--max-keys-per-kind", "1000", "--global-ready-timeout", "3s")

        async def stopped() -> bool:
            status = (await replica.remote("mallory")).get("status", "")
            return "more than 1000 keys" in status and "--max-keys-per-kind" in status

        await until(stopped)
        await until(replica.is_ready)
        assert await copied(cache, "paris") == SHOP
        held = await contents(cache)
        assert keys.canary(Kind.NODES, Layout.CACHE, "mallory") not in held
        mine = [key for key in held if key.startswith("cilium/cache/nodes/v1/mallory/")]
        assert len(mine) <= 1000
