"""A restart is invisible to readers, and an etcd that lost everything gets everything back."""

import asyncio
import signal
import time

import pytest

from kvstore.client import PutOp
from kvstore.etcd import open_etcd
from tests.support.apiserver import (
    Apiserver,
    contents,
    listed,
    recording,
    service,
    slice_of,
    until,
)
from tests.support.etcd import Etcd

DATA = ("cilium/state/", "clustermesh/local/v1/services/", "cilium/cluster-config/")


def facts(found: dict[str, object]) -> set[str]:
    return {key for key in found if key.startswith(DATA)}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_restart_deletes_nothing_and_takes_over_every_key(
    apiserver: Apiserver, etcd: Etcd, number: int
) -> None:
    await apiserver.ready()
    await until(lambda: _beaten(etcd))
    before = await contents(etcd)
    async with recording(etcd) as seen:
        began = time.monotonic()
        code = apiserver.stop(number)
        print(f"stopped {time.monotonic() - began:.2f} s after {signal.Signals(number).name}")
        assert code == (0 if number == signal.SIGTERM else -signal.SIGKILL)
        assert await contents(etcd) == before
        await apiserver.ready()
        await until(lambda: _moved(etcd, {entry.lease for entry in before.values()}))
    assert seen.deleted() == []
    after = await contents(etcd)
    assert after.keys() == before.keys()
    for key in facts(before):
        assert after[key].value == before[key].value, key


async def test_leftovers_go_after_everything_else_has_been_put_again(
    apiserver: Apiserver, etcd: Etcd
) -> None:
    await apiserver.ready()
    apiserver.stop(signal.SIGKILL)
    apiserver.manifest("web")
    async with open_etcd(etcd.config("root")) as store:
        await store.commit(
            [
                PutOp("cilium/state/nodes/v1/paris/ghost", b"{}"),
                PutOp("cilium/state/nodes/v1/paris2/other", b"{}"),
                PutOp("cilium/cache/nodes/v1/rome/n1", b"{}"),
            ]
        )
    async with recording(etcd) as seen:
        await apiserver.ready()
        await until(lambda: _is(len(seen.deleted()) >= 3))
    identity, *rest = sorted(seen.deleted())
    assert identity.startswith("cilium/state/identities/v1/id/")
    assert rest == ["cilium/state/ip/v1/default/10.7.0.45", "cilium/state/nodes/v1/paris/ghost"]
    left = await contents(etcd)
    assert {"cilium/state/nodes/v1/paris2/other", "cilium/cache/nodes/v1/rome/n1"} <= left.keys()
    written = [change.key for change in seen.changes]
    assert written.index("cilium/synced/paris/cilium/state/ip/v1") < written.index(
        "cilium/state/nodes/v1/paris/ghost"
    )


async def test_a_wiped_etcd_gets_users_and_everything_back(
    apiserver: Apiserver, etcd: Etcd
) -> None:
    apiserver.peers("remote-rome")
    await apiserver.ready()
    await until(lambda: _beaten(etcd))
    before = await contents(etcd)
    etcd.wipe()
    etcd.start()
    await etcd.ready()
    await until(lambda: _whole(etcd, set(before)))
    after = await contents(etcd)
    for key in facts(before):
        assert after[key].value == before[key].value, key
    await until(lambda: _is("remote-rome" in etcd.ctl("user", "list")))
    async with open_etcd(etcd.config("remote-rome")) as store:
        assert await listed(store, "cilium/state/")
    apiserver.manifest("cart", service("cart"), slice_of("cart", "10.7.0.46"))
    await until(lambda: _says(etcd, "cilium/state/services/v1/paris/shop/cart", b"10.7.0.46"))


async def test_an_etcd_that_is_away_for_a_while_is_waited_for(
    apiserver: Apiserver, etcd: Etcd
) -> None:
    await apiserver.ready()
    etcd.kill()
    apiserver.manifest("cart", service("cart"), slice_of("cart", "10.7.0.46"))
    await until(lambda: _answers(apiserver, 500, "NotReady"))
    assert any("etcd" in line for line in (await apiserver.status())["trouble"])
    etcd.start()
    await etcd.ready()
    await until(lambda: _answers(apiserver, 200, "Ready"))
    await until(lambda: _says(etcd, "cilium/state/services/v1/paris/shop/cart", b"10.7.0.46"))


@pytest.mark.parametrize("state", ["stopped", "gone"])
async def test_it_stops_when_told_also_while_etcd_does_not_answer(
    apiserver: Apiserver, etcd: Etcd, state: str
) -> None:
    await apiserver.ready()
    if state == "stopped":
        etcd.pause()
    else:
        etcd.kill()
    apiserver.manifest("cart", service("cart"), slice_of("cart", "10.7.0.46"))
    await asyncio.sleep(0.5)  # a write is under way
    began = time.monotonic()
    assert apiserver.stop() == 0
    print(f"stopped in {time.monotonic() - began:.2f} s with etcd {state}")
    assert "Traceback" not in apiserver.log.read_text()


async def test_a_lease_that_is_lost_costs_no_key(apiserver: Apiserver, etcd: Etcd) -> None:
    await apiserver.ready("--lease-ttl=5s")
    before = await contents(etcd)
    async with open_etcd(etcd.config("root")) as store:
        for lease in {entry.lease for entry in before.values()}:
            await store.revoke(lease)
    await until(lambda: _whole(etcd, set(before)))


async def test_a_cluster_config_that_somebody_changes_is_put_back(
    apiserver: Apiserver, etcd: Etcd
) -> None:
    await apiserver.ready()
    key = "cilium/cluster-config/paris"
    right = (await contents(etcd, key))[key].value
    async with open_etcd(etcd.config("root")) as store:
        revision = await store.commit([PutOp(key, b'{"id":9,"capabilities":{}}')])
        await until(lambda: _later(etcd, key, revision, right))
    etcd.ctl("del", key)
    await until(lambda: _says(etcd, key, right))


async def _is(answer: bool) -> bool:
    return answer


async def _beaten(etcd: Etcd) -> bool:
    return bool(await contents(etcd, "cilium/.heartbeat"))


async def _moved(etcd: Etcd, old: set[int]) -> bool:
    """Whether every key hangs on a lease that is not an old one."""
    return not {entry.lease for entry in (await contents(etcd)).values()} & old


async def _whole(etcd: Etcd, keys: set[str]) -> bool:
    return keys <= (await contents(etcd)).keys()


async def _says(etcd: Etcd, key: str, part: bytes) -> bool:
    found = (await contents(etcd, key)).get(key)
    return found is not None and part in found.value


async def _later(etcd: Etcd, key: str, revision: int, value: bytes) -> bool:
    found = (await contents(etcd, key)).get(key)
    return found is not None and found.revision > revision and found.value == value


async def _answers(apiserver: Apiserver, code: int, text: str) -> bool:
    return await apiserver.ask("GET /readyz") == (code, text)
