"""What happens to a copy when clusters, etcds and replicas come and go."""

import asyncio
import json
import signal
import time
from pathlib import Path

from clustermesh import keys
from clustermesh.keys import Kind, Layout
from kvstore.client import DeletePrefixOp, PutOp
from kvstore.events import Delete
from tests.support.apiserver import contents, recording, until
from tests.support.etcd import Etcd, running_etcd
from tests.support.kvstoremesh import SHOP, Replica, cluster, config, copied, write

CART = "cilium/state/services/v1/paris/shop/cart"


async def holds(cache: Etcd, name: str, *kinds: Kind) -> bool:
    """Whether the cache holds SHOP (or some kinds of it) as a copy of the cluster."""
    found = await copied(cache, name)
    return all(found.get(kind) == SHOP[kind] for kind in kinds or SHOP)


def of(name: str, keys_: list[str]) -> list[str]:
    """Those keys of the cache that belong to a cluster."""
    return [key for key in keys_ if f"/{name}/" in f"{key}/"]


def left_of(cache: Etcd, lease: int) -> tuple[float, float]:
    """Seconds that a lease has left, and those that it was granted for."""
    told = json.loads(cache.ctl("lease", "timetolive", f"{lease:x}", "-w", "json"))
    return told["ttl"], told["granted-ttl"]


async def test_a_removed_cluster_goes_in_order_and_takes_nothing_else_along(tmp_path: Path) -> None:
    with running_etcd() as source, running_etcd() as cache, Replica(tmp_path, cache) as replica:
        for name, number in (("paris", 7), ("paris2", 8)):
            await write(source, cluster(name, number, SHOP))
            replica.configure(name, source)
        await replica.ready()
        async with recording(cache) as seen:
            replica.remove("paris")

            async def gone() -> bool:
                return not of("paris", [*await contents(cache)])

            await until(gone)

            async def told() -> bool:
                return len(of("paris", seen.deleted())) == 1 + 5 + 6

            await until(told)
        deleted = [key for key in seen.deleted() if key.startswith("cilium/")]
        assert deleted[0] == keys.cluster_config("paris")
        assert {key for key in deleted if "/paris2" in key} == set()
        kinds = [key.removeprefix("cilium/cache/").partition("/")[0] for key in deleted[1:]]
        assert list(dict.fromkeys(kinds)) == ["cilium", "ip", "identities", "nodes", "services"]
        assert await holds(cache, "paris2")


async def test_a_cluster_that_comes_back_during_its_removal_is_copied_anew(tmp_path: Path) -> None:
    with running_etcd() as source, running_etcd() as cache, Replica(tmp_path, cache) as replica:
        await write(source, cluster("paris", 7, SHOP))
        replica.configure("paris", source)
        await replica.ready()
        replica.remove("paris")

        async def withdrawn() -> bool:
            return keys.cluster_config("paris") not in await contents(cache)

        await until(withdrawn)
        replica.configure("paris", source)
        async with recording(cache) as seen:

            async def back() -> bool:
                return (await replica.remote("paris")).get("ready", False)

            async def whole() -> bool:
                return await back() and await holds(cache, "paris") and not await withdrawn()

            await until(lambda: asyncio.sleep(0, len(seen.deleted()) > 5))
            await until(whole)


async def test_another_id_is_announced_before_anything_of_it_is_complete(tmp_path: Path) -> None:
    with running_etcd() as source, running_etcd() as cache, Replica(tmp_path, cache) as replica:
        await write(source, cluster("paris", 7, SHOP))
        replica.configure("paris", source)
        await replica.ready()
        async with recording(cache) as seen:
            await write(source, [PutOp(keys.cluster_config("paris"), config(9))])

            async def renamed() -> bool:
                remote = await replica.remote("paris")
                return bool(remote["ready"]) and remote["config"]["cluster-id"] == 9

            await until(renamed)
            sign = keys.canary(Kind.NODES, Layout.CACHE, "paris")

            async def signed() -> bool:
                return sign in seen.put()

            await until(signed)
        order = [(type(change) is Delete, change.key) for change in seen.changes]
        announced = order.index((False, keys.cluster_config("paris")))
        assert order.index((True, sign)) < announced < order.index((False, sign))


async def test_deletions_of_a_silent_cluster_are_held(tmp_path: Path) -> None:
    with running_etcd() as source, running_etcd() as cache, Replica(tmp_path, cache) as replica:
        await write(source, cluster("paris", 7, SHOP))
        replica.configure("paris", source)
        await replica.ready("--heartbeat-limit", "500ms")

        async def silent() -> bool:
            return "deletions are held" in str((await replica.remote("paris")).get("held"))

        await until(silent)
        await write(source, [DeletePrefixOp("cilium/state/")])

        await write(source, [PutOp(CART + "2", b"new")])

        async def added() -> bool:
            return "shop/cart2" in (await copied(cache, "paris"))[Kind.SERVICES]

        await until(added)
        assert await holds(cache, "paris", Kind.NODES, Kind.IDENTITIES, Kind.IPS)
        await write(source, [PutOp(keys.HEARTBEAT, b"alive")])

        async def settled() -> bool:
            return await copied(cache, "paris") == {Kind.SERVICES: {"shop/cart2": b"new"}}

        await until(settled)


async def test_a_restart_writes_nothing_and_needs_no_source(tmp_path: Path) -> None:
    """Leases of the first life are taken over: no load makes that a race, they last a minute."""
    with running_etcd() as source, running_etcd() as cache, Replica(tmp_path, cache) as replica:
        await write(source, cluster("paris", 7, SHOP))
        replica.configure("paris", source)
        await replica.ready("--lease-ttl", "60s")
        before = {key: one.lease for key, one in (await contents(cache, "cilium/")).items()}
        replica.stop(signal.SIGKILL)
        source.kill()
        await asyncio.sleep(3)
        async with recording(cache) as seen:
            began = time.monotonic()
            await replica.ready("--lease-ttl", "60s", "--per-cluster-ready-timeout", "100ms")
            assert await holds(cache, "paris")
            left = {lease: left_of(cache, lease) for lease in {*before.values()} - {0}}
            waited = time.monotonic() - began
            assert left
            for lease, (remaining, granted) in left.items():
                assert remaining >= granted - waited - 1, f"{lease:x} was not renewed"
            source.start()
            await source.ready()

            async def back() -> bool:
                return bool((await replica.remote("paris"))["ready"])

            await until(back)
        touched = [change.key for change in seen.changes if change.key.startswith("cilium/")]
        assert touched == []
        after = {key: one.lease for key, one in (await contents(cache, "cilium/")).items()}
        assert after == before


async def test_another_replica_takes_over_without_a_gap(tmp_path: Path) -> None:
    with (
        running_etcd() as source,
        running_etcd() as cache,
        Replica(tmp_path, cache, name="a") as first,
        Replica(tmp_path, cache, name="b") as second,
    ):
        await write(source, cluster("paris", 7, SHOP))
        first.configure("paris", source)
        await first.ready()
        await second.ready()
        assert (await second.status())["role"].startswith("a leads")
        async with recording(cache) as seen:
            first.stop(signal.SIGKILL)
            await write(source, [PutOp(CART, b"newer")])

            async def newer() -> bool:
                return (await copied(cache, "paris"))[Kind.SERVICES]["shop/cart"] == b"newer"

            await until(newer)
        assert (await second.status())["role"] == "leading"
        assert [key for key in seen.put() if key.startswith("cilium/")] == [
            CART.replace("state", "cache")
        ]
        assert not [key for key in seen.deleted() if key.startswith("cilium/")]
        await first.ready()
        assert second.stop() == 0  # asked to stop, it hands over at once

        async def leads() -> bool:
            return (await first.status())["role"] == "leading"

        await until(leads)


async def test_a_wiped_cache_is_filled_again(tmp_path: Path) -> None:
    with running_etcd() as source, running_etcd() as cache, Replica(tmp_path, cache) as replica:
        await write(source, cluster("paris", 7, SHOP))
        replica.configure("paris", source)
        await replica.ready()
        source.kill()  # what is copied already is enough
        cache.wipe()
        cache.start()
        await cache.ready()
        await until(lambda: holds(cache, "paris"))

        async def signed() -> bool:
            return keys.canary(Kind.IPS, Layout.CACHE, "paris") in await contents(cache)

        await until(signed)


async def test_a_wiped_source_is_waited_for(tmp_path: Path) -> None:
    with running_etcd() as source, running_etcd() as cache, Replica(tmp_path, cache) as replica:
        await write(source, cluster("paris", 7, SHOP))
        replica.configure("paris", source)
        await replica.ready("--doubt", "30s")
        source.wipe()
        source.start()
        await source.ready()

        async def missed() -> bool:
            return bool((await replica.remote("paris"))["held"])

        await until(missed)
        assert await holds(cache, "paris")
        await write(source, cluster("paris", 7, SHOP | {Kind.NODES: {"n2": b"2"}}))

        async def followed() -> bool:
            return "n2" in (await copied(cache, "paris"))[Kind.NODES]

        await until(followed)


async def test_a_copy_of_a_cluster_that_was_removed_meanwhile_goes(tmp_path: Path) -> None:
    with running_etcd() as source, running_etcd() as cache, Replica(tmp_path, cache) as replica:
        for name, number in (("paris", 7), ("rome", 8)):
            await write(source, cluster(name, number, SHOP))
            replica.configure(name, source)
        await replica.ready()
        replica.stop()
        replica.remove("paris")
        replica.start(
            "--clustermesh-config", str(tmp_path / "not-there")
        )  # an unreadable configuration is no empty one

        async def troubled() -> bool:
            return any("not-there" in it for it in (await replica.status())["trouble"])

        await until(troubled)
        assert await holds(cache, "paris")
        replica.stop()
        await replica.ready()

        async def gone() -> bool:
            return not await copied(cache, "paris")

        await until(gone)
        assert await holds(cache, "rome")


async def test_services_of_a_cluster_away_too_long_are_let_go(tmp_path: Path) -> None:
    with running_etcd() as source, running_etcd() as cache, Replica(tmp_path, cache) as replica:
        await write(source, cluster("paris", 7, SHOP))
        replica.configure("paris", source)
        await replica.ready("--clustermesh-cache-ttl", "500ms")
        source.kill()

        async def let_go() -> bool:
            return Kind.SERVICES not in await copied(cache, "paris")

        await until(let_go)
        assert await holds(cache, "paris", Kind.NODES, Kind.IDENTITIES, Kind.IPS)
        source.start()
        await source.ready()
        await until(lambda: holds(cache, "paris"))
