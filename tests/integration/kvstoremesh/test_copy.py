"""The real process copies real etcds: bytes, places, order."""

import asyncio
import json
import urllib.request
from pathlib import Path

import pytest

from clustermesh import keys, propagation
from clustermesh.keys import Kind, Layout
from clustermesh.meshctl import api
from clustermesh.propagation import Probe
from kvstore.client import DeleteOp, PutOp
from kvstore.events import Put
from tests.support import vectors
from tests.support.apiserver import contents, recording, until
from tests.support.etcd import Etcd, free_port, running_etcd
from tests.support.kvstoremesh import SHOP, Replica, cluster, config, copied, write


async def reached(replica: Replica, source: Etcd) -> list[dict[str, str]]:
    """What it finds on the way to an etcd (POST /v1/reach), step by step."""
    asked = {"endpoints": [source.url], "authority": ""}
    question = {"reach": json.dumps(asked)}
    url = f"unix:{replica.socket}"
    return await asyncio.to_thread(api.ask, url, "/v1/reach", question, list[dict[str, str]])


@pytest.mark.parametrize("layout", [Layout.STATE, Layout.CACHE])
async def test_a_cluster_is_copied_byte_by_byte_and_followed(
    tmp_path: Path, layout: Layout
) -> None:
    with running_etcd() as source, running_etcd() as cache, Replica(tmp_path, cache) as replica:
        await write(source, cluster("paris", 7, SHOP, layout=layout))
        replica.configure("paris", source)
        await replica.ready()
        assert [each["code"] for each in await reached(replica, source)] == ["DNS", "TCP"]
        assert await copied(cache, "paris") == SHOP
        prefix = keys.prefix(Kind.SERVICES, layout, "paris")
        await write(
            source,
            [PutOp(f"{prefix}shop/cart", b"\x28\xb5\x2f\xfd"), DeleteOp(f"{prefix}shop/till")],
        )

        async def followed() -> bool:
            services = (await copied(cache, "paris"))[Kind.SERVICES]
            return services == {"shop/cart": b"\x28\xb5\x2f\xfd"}

        assert await until(followed)


@pytest.mark.parametrize("recording_", vectors.RECORDINGS[2:], ids=lambda path: path.parent.name)
async def test_recorded_clusters_are_copied_whole(tmp_path: Path, recording_: Path) -> None:
    with running_etcd() as source, running_etcd() as cache, Replica(tmp_path, cache) as replica:
        records = {record.key: record.value for record in vectors.records(recording_)}
        place = keys.cluster_config("")
        configs = {k.removeprefix(place): v for k, v in records.items() if k.startswith(place)}
        await write(source, [PutOp(key, value) for key, value in records.items()])
        for name in configs:
            replica.configure(name, source)
        most = "511" if "511" in recording_.stem else "255"
        await replica.ready("--max-connected-clusters", most, "--cluster-id", "200")
        for name, value in configs.items():
            found = await copied(cache, name)
            assert Kind.NODES in found
            layout = Layout.CACHE if keys.decode_config(value).capabilities.cached else Layout.STATE
            for kind, held in found.items():
                start = keys.prefix(kind, layout, name)
                there = {
                    k.removeprefix(start): v for k, v in records.items() if k.startswith(start)
                }
                assert held == there


async def test_config_comes_first_and_canaries_last_and_unknown_members_stay(
    tmp_path: Path,
) -> None:
    said = (
        b'{"id":7,"future":[1e400,"\\u003c"],"capabilities":{"syncedCanaries":true,"new":{"a":1}}}'
    )
    with running_etcd() as source, running_etcd() as cache, Replica(tmp_path, cache) as replica:
        await write(source, cluster("paris", 7, SHOP))
        await write(source, [PutOp(keys.cluster_config("paris"), said)])
        replica.configure("paris", source)
        async with recording(cache) as seen:
            await replica.ready()

            async def all_seen() -> bool:
                return len({key for key in seen.put() if key.startswith("cilium/synced/")}) == 5

            await until(all_seen)
        written = [key for key in seen.put() if key.startswith("cilium/")]
        assert written[0] == keys.cluster_config("paris")
        places = {key: at for at, key in enumerate(written)}
        for kind, values in SHOP.items():
            sign = places[keys.canary(kind, Layout.CACHE, "paris")]
            prefix = keys.prefix(kind, Layout.CACHE, "paris")
            assert all(places[prefix + name] < sign for name in values)
        told = keys.cluster_config("paris")
        put = next(it for it in seen.changes if isinstance(it, Put) and it.key == told)
        assert put.value == (
            b'{"id":7,"future":[1e400,"\\u003c"],'
            b'"capabilities":{"syncedCanaries":true,"cached":true,"new":{"a":1}}}'
        )
        found = await contents(cache)
        assert all(entry.lease for key, entry in found.items() if key.startswith("cilium/"))


async def test_the_propagation_probe_is_copied_and_goes_with_its_cluster(tmp_path: Path) -> None:
    with running_etcd() as source, running_etcd() as cache, Replica(tmp_path, cache) as replica:
        await write(source, cluster("paris", 7, SHOP))
        replica.configure("paris", source)
        await replica.ready("--drain-wait", "100ms")
        target = propagation.key(Layout.CACHE, "paris")
        for number in (1, 2):
            value = propagation.encode(Probe("life", number, 1))
            await write(source, [PutOp(propagation.key(Layout.STATE, "paris"), value)])

            async def there(wanted: bytes = value) -> bool:
                entry = (await contents(cache)).get(target)
                return entry is not None and entry.value == wanted

            await until(there)
        replica.remove("paris")

        async def gone() -> bool:
            return target not in await contents(cache)

        await until(gone)


async def test_nothing_is_copied_before_its_canary(tmp_path: Path) -> None:
    with running_etcd() as source, running_etcd() as cache, Replica(tmp_path, cache) as replica:
        ops = cluster("paris", 7, SHOP)
        sign = keys.canary(Kind.IPS, Layout.STATE, "paris")
        await write(source, [op for op in ops if isinstance(op, PutOp) and op.key != sign])
        replica.configure("paris", source)
        replica.start()

        async def others() -> bool:
            found = await contents(cache)
            return keys.canary(Kind.NODES, Layout.CACHE, "paris") in found

        await until(others)
        assert Kind.IPS not in await copied(cache, "paris")
        assert not await replica.is_ready()
        await write(source, [PutOp(sign, b"now")])
        await until(replica.is_ready)
        assert await copied(cache, "paris") == SHOP


async def test_what_cilium_s_tools_ask_is_answered_in_their_words(tmp_path: Path) -> None:
    with running_etcd() as source, running_etcd() as cache, Replica(tmp_path, cache) as replica:
        await write(source, cluster("paris", 7, SHOP))
        replica.configure("paris", source)
        replica.configure("home", source)  # the own name: ignored
        replica.configure("oslo", source)  # has no config there
        rest, health, scraped = free_port(), free_port(), free_port()
        await replica.ready(
            *("--per-cluster-ready-timeout", "100ms", "--kvstore=etcd", "--enable-gops"),
            *(f"--kvstore-opt=etcd.config={replica.client}", "--kvstore-opt=etcd.maxInflight=10"),
            *(f"--api-serve-addr=localhost:{rest}", f"--health-port={health}"),
            f"--prometheus-serve-addr=:{scraped}",
        )
        oslo, paris = json.loads(await _get(f"http://localhost:{rest}/v1/cluster"))
        assert await _get(f"http://127.0.0.1:{health}/readyz") == "Ready"
        assert (oslo["name"], "ready" in oslo) == ("oslo", False)
        etcd = paris.pop("status")
        assert etcd.startswith("etcd: connected to")
        assert paris == {
            "name": "paris",
            "ready": True,
            "connected": True,
            "last-failure": "0001-01-01T00:00:00.000Z",
            "num-nodes": 1,
            "num-identities": 1,
            "num-endpoints": 2,
            "num-shared-services": 2,
            "config": {"required": True, "retrieved": True, "cluster-id": 7, "sync-canaries": True},
            "synced": {
                "nodes": True,
                "services": True,
                "identities": True,
                "endpoints": True,
                "service-exports": None,
                "endpoint-slices": None,
            },
        }
        metrics = await _get(f"http://127.0.0.1:{scraped}/metrics")
        prefix = "cilium_kvstoremesh_"
        assert (
            f'{prefix}remote_clusters{{source_cluster="home",source_node_name=""}} 2.0' in metrics
        )
        assert f'{prefix}kvstore_initial_sync_completed{{action="write",scope="ip/v1",' in metrics
        assert f"{prefix}bootstrap_seconds " in metrics
        assert f"{prefix}kvstore_operations_duration_seconds_bucket" in metrics
        assert (await replica.ask("GET /livez"))[0] == 200
        shown = replica.show()
        assert "paris     7    yes     1       1            2           2" in shown.stdout
        assert "! cluster oslo: its etcd has no cilium/cluster-config/oslo" in shown.stdout
        assert shown.returncode == 1


async def _get(url: str) -> str:
    """What is answered over TCP."""

    def read() -> str:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310  # http, from above
            text: str = answer.read().decode()
            return text

    return await asyncio.to_thread(read)


async def test_validate_names_every_fault_and_writes_nothing(tmp_path: Path) -> None:
    with running_etcd() as source, running_etcd() as cache:
        replica = Replica(tmp_path, cache)
        await write(source, [PutOp(keys.cluster_config("paris"), config(7))])
        await write(source, [PutOp(keys.cluster_config("rome"), config(1))])
        replica.configure("paris", source)
        assert replica.run("--validate").stdout == "valid\n"
        replica.configure("rome", source)
        replica.configure("oslo", source, **{"cert-file": "x.crt"})
        done = replica.run("--validate")
        assert done.returncode == 1
        oslo, rome, total = done.stderr.splitlines()
        assert "$.key-file: expected a path" in oslo
        assert "id 1 is that of this cluster itself" in rome
        assert total == "kvstoremesh: not valid: 2 faults"
        assert not await contents(cache)


async def test_it_works_with_the_certificates_and_roles_of_the_contract(tmp_path: Path) -> None:
    with (
        running_etcd(tls=True) as source,
        running_etcd() as cache,
        Replica(tmp_path, cache) as replica,
    ):
        await write(source, cluster("paris", 7, SHOP))
        protect(source)
        replica.configure("paris", source)
        await replica.ready()
        assert await copied(cache, "paris") == SHOP


def protect(source: Etcd) -> None:
    """Authentication on, and the role `remote` of contract kvstore 7."""
    source.ctl("user", "add", "root", "--no-password")
    source.ctl("user", "grant-role", "root", "root")
    source.ctl("role", "add", "remote")
    for prefix in ("cilium/.heartbeat", "cilium/state/", "cilium/synced/paris/"):
        source.ctl("role", "grant-permission", "remote", "read", prefix, "--prefix")
    source.ctl("role", "grant-permission", "remote", "read", keys.cluster_config("paris"))
    source.ctl("user", "add", "remote", "--no-password")
    source.ctl("user", "grant-role", "remote", "remote")
    source.ctl("auth", "enable")
