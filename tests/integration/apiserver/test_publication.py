"""Manifests in, keys out: exact, in the order that readers rely on, and following every change."""

import re
import shutil
import time
from pathlib import Path

import pytest

from clustermesh import propagation
from clustermesh.keys import Layout
from kvstore.client import Entry
from tests.support.apiserver import (
    Apiserver,
    contents,
    pod,
    recording,
    service,
    shop,
    slice_of,
    until,
)
from tests.support.etcd import Etcd
from tests.support.golden import comparable
from tests.support.manifests import load
from tests.support.vectors import APISERVER, records

ROOM = (3 << 19) - 1000
"""Bytes that just fit into a value of an etcd as it is shipped."""
CART = "cilium/state/services/v1/paris/shop/cart"
VALUE = (
    b'{"cluster":"paris","namespace":"shop","name":"cart",'
    b'"frontends":{"10.107.0.9":{"http":{"Protocol":"TCP","Port":80}}},'
    b'"backends":{"10.7.0.44":{"http":{"Protocol":"TCP","Port":8080}}},'
    b'"labels":{},"selector":{},"includeExternal":true,"shared":true,"clusterID":7}'
)


@pytest.mark.parametrize(
    ("recorded", "number", "flags"),
    [
        ("etcd-shared-only.jsonl", 7, ()),
        ("etcd-max511.jsonl", 300, ("--max-connected-clusters=511",)),
        ("etcd-mcsapi.jsonl", 7, ("--mcs-api",)),
    ],
)
async def test_the_objects_of_the_recordings_give_the_recorded_keys(
    tmp_path: Path, etcd: Etcd, recorded: str, number: int, flags: tuple[str, ...]
) -> None:
    world = []
    with Apiserver(tmp_path / "cl1", etcd, cluster="cl1", number=number) as apiserver:
        for name in ("objects.yaml", "mcs-objects.yaml"):
            shutil.copy(APISERVER / name, apiserver.manifests / name)
            world += load(APISERVER / name)
        await apiserver.ready(*flags)
        found = {key: entry.value for key, entry in (await contents(etcd)).items()}
    theirs = {record.key: record.value for record in records(APISERVER / recorded)}
    assert comparable(found, world) == comparable(theirs, world)
    synced = {key for key in found if key.startswith("cilium/synced/")}
    assert synced == {key for key in theirs if key.startswith("cilium/synced/")}


async def test_every_key_of_a_small_cluster(apiserver: Apiserver, etcd: Etcd) -> None:
    await apiserver.ready()
    await until(lambda: _has(etcd, "cilium/.heartbeat"))
    found = await contents(etcd)
    identities = sorted(key for key in found if key.startswith("cilium/state/identities/v1/id/"))
    assert len(identities) == 2
    assert found.keys() - set(identities) == {
        "cilium/.heartbeat",
        "cilium/cluster-config/paris",
        "cilium/state/ip/v1/default/10.7.0.44",
        "cilium/state/ip/v1/default/10.7.0.45",
        "cilium/state/nodes/v1/paris/n1",
        CART,
        *(
            f"cilium/synced/paris/cilium/state/{kind}/v1"
            for kind in ("identities", "ip", "nodes", "serviceexports", "services")
        ),
        "clustermesh/local/v1/services/shop/cart",
        "clustermesh/local/v1/synced/services",
    }
    assert found[CART].value == VALUE
    assert found["cilium/cluster-config/paris"].value == (
        b'{"id":7,"capabilities":{"syncedCanaries":true,"maxConnectedClusters":255,'
        b'"serviceExportsEnabled":false}}'
    )
    stamp = found["cilium/.heartbeat"].value.decode()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", stamp)
    assert all(entry.lease for entry in found.values())


async def test_configuration_data_canaries_heartbeat(apiserver: Apiserver, etcd: Etcd) -> None:
    async with recording(etcd) as seen:
        await apiserver.ready()
        await until(lambda: _true("cilium/.heartbeat" in seen.put()))
    order = [_class(key) for key in dict.fromkeys(seen.put())]
    assert order == sorted(order)
    assert order[0] == 0
    assert order[-1] == 3
    assert seen.deleted() == []


async def test_an_edited_manifest_changes_its_keys_and_no_other(
    apiserver: Apiserver, etcd: Etcd
) -> None:
    await apiserver.ready()
    async with recording(etcd) as seen:
        apiserver.manifest("cart", service("cart"), slice_of("cart", "10.7.0.44", "10.7.0.46"))
        await until(lambda: _true("clustermesh/local/v1/services/shop/cart" in seen.put()))
        await until(lambda: _true(CART in seen.put()))
        apiserver.manifest("cart", service("cart", shared="false"), slice_of("cart", "10.7.0.44"))
        await until(lambda: _true(seen.deleted() == [CART]))
        apiserver.manifest("web")
        await until(lambda: _true("cilium/state/ip/v1/default/10.7.0.45" in seen.deleted()))
    written = set(seen.put()) - {"cilium/.heartbeat"}
    assert written == {CART, "clustermesh/local/v1/services/shop/cart"}


async def test_a_bad_manifest_is_named_and_stops_nothing(apiserver: Apiserver, etcd: Etcd) -> None:
    bad = service("bad")
    bad["spec"]["ports"] = [{"name": "http", "port": "eighty"}]
    apiserver.manifest("bad", service("good"), slice_of("good", "10.7.0.44"), bad)
    await apiserver.ready()
    found = await contents(etcd)
    assert "cilium/state/services/v1/paris/shop/good" in found
    (refusal,) = (await apiserver.status())["refusals"]
    assert "bad.yaml" in refusal["what"]
    assert "spec.ports[0].port" in refusal["reason"]
    apiserver.manifest("bad", service("good"), slice_of("good", "10.7.0.44"), service("bad"))
    await until(lambda: _no_refusals(apiserver))


async def test_a_value_that_etcd_refuses_stays_as_it_was_and_stops_nothing(
    apiserver: Apiserver, etcd: Etcd
) -> None:
    await apiserver.ready()
    huge = service("cart")
    huge["metadata"]["labels"] = {"large": "x" * (ROOM + 1000)}
    apiserver.manifest("cart", huge, slice_of("cart", "10.7.0.50"))
    apiserver.manifest("later", service("later"), slice_of("later", "10.7.0.44"))
    await until(lambda: _has(etcd, "cilium/state/services/v1/paris/shop/later"))
    assert (await contents(etcd))[CART].value == VALUE
    refusals = await until(lambda: _refusals(apiserver))
    assert [each["what"] for each in refusals] == ["Service shop/cart"]
    assert f"{CART}: " in refusals[0]["reason"]
    assert await apiserver.ask("GET /readyz") == (200, "Ready")
    fitting = service("cart")
    fitting["metadata"]["labels"] = {"large": "x" * ROOM}
    apiserver.manifest("cart", fitting, slice_of("cart", "10.7.0.50"))
    await until(lambda: _no_refusals(apiserver))
    await until(lambda: _larger(etcd, CART, ROOM))


async def test_two_clusters_publish_equal_identities_for_equal_labels(
    tmp_path: Path, apiserver: Apiserver, etcd: Etcd
) -> None:
    """Replicas have an etcd each; without a shared record they still agree."""
    await apiserver.ready()
    first = await contents(etcd, "cilium/state/")
    apiserver.stop()
    etcd.wipe()
    etcd.start()
    await etcd.ready()
    with Apiserver(tmp_path / "replica", etcd) as replica:
        shop(replica)
        await replica.ready()
        second = await contents(etcd, "cilium/state/")
    assert _values(first) == _values(second)


async def test_a_number_once_given_is_kept(apiserver: Apiserver, etcd: Etcd) -> None:
    await apiserver.ready()
    before = await contents(etcd, "cilium/state/identities/")
    apiserver.stop()
    apiserver.manifest("more", pod("other-0", "10.7.0.50", "n1", app="other"))
    await apiserver.ready()
    after = await contents(etcd, "cilium/state/identities/")
    assert _values(before).items() < _values(after).items()


def _values(entries: dict[str, Entry]) -> dict[str, bytes]:
    return {key: entry.value for key, entry in entries.items()}


def _class(key: str) -> int:
    """Configuration 0, data 1, canaries 2, heartbeat 3."""
    if key.startswith("cilium/cluster-config/"):
        return 0
    if key == "cilium/.heartbeat":
        return 3
    return 2 if "/synced/" in key else 1


async def _has(etcd: Etcd, key: str) -> bool:
    return key in await contents(etcd, key)


async def _true(answer: bool) -> bool:
    return answer


async def _refusals(apiserver: Apiserver) -> list[dict[str, str]]:
    found: list[dict[str, str]] = (await apiserver.status())["refusals"]
    return found


async def _larger(etcd: Etcd, key: str, size: int) -> bool:
    return len((await contents(etcd, key))[key].value) > size


async def _no_refusals(apiserver: Apiserver) -> bool:
    return not (await apiserver.status())["refusals"]


async def test_what_speaks_for_all_else_hangs_on_leases_that_end_first(
    apiserver: Apiserver, etcd: Etcd
) -> None:
    await apiserver.ready("--lease-ttl=900s")
    await until(lambda: _has(etcd, "cilium/.heartbeat"))
    found = await contents(etcd)
    signs = {
        key
        for key in found
        if key.startswith(("cilium/cluster-config/", "cilium/synced/"))
        or key == "clustermesh/local/v1/synced/services"
    }
    assert len(signs) == 7
    lives = {key: _life(etcd, entry.lease) for key, entry in found.items()}
    assert {lives[key] for key in signs} == {540}
    assert {lives[key] for key in found.keys() - signs} == {900}


def _life(etcd: Etcd, lease: int) -> int:
    """For how many seconds the lease was granted."""
    text = etcd.ctl("lease", "timetolive", f"{lease:x}")
    granted = re.search(r"granted with TTL\((\d+)s\)", text)
    assert granted, text
    return int(granted[1])


async def test_a_propagation_probe_is_put_again_and_again_and_ends_with_its_lease(
    apiserver: Apiserver, etcd: Etcd
) -> None:
    place = propagation.key(Layout.STATE, "paris")
    await apiserver.ready("--propagation-interval=200ms")

    async def later() -> bool:
        entry = (await contents(etcd)).get(place)
        return entry is not None and propagation.decode(entry.value).seq >= 3

    await until(later)
    found = await contents(etcd)
    assert found[place].lease == found["cilium/state/nodes/v1/paris/n1"].lease
    probe = propagation.decode(found[place].value)
    assert abs(time.time_ns() - probe.sent) < 60 * 1_000_000_000
    assert [key for key in found if "probe" in key] == [place]
