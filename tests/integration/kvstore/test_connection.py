"""Connecting: certificates, names, several endpoints, and what an operator is told meanwhile."""

import asyncio
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import msgspec
import pytest

from kvstore.client import Denied, OtherPast, PutOp, StoreError, Unavailable
from kvstore.config import EtcdConfig
from kvstore.etcd import EtcdStore, open_etcd
from kvstore.watch import ending
from tests.support.certs import Authority
from tests.support.etcd import Etcd, free_port, running_etcd
from tests.support.proxy import proxy_to
from tests.support.store_contract import end_of

QUICK = {"reconnect_ceiling": 0.2, "dial_timeout": 2.0, "qps": 10_000.0}


@pytest.fixture(scope="module")
def secure() -> Iterator[Etcd]:
    with running_etcd(tls=True) as etcd:
        yield etcd


async def once(store: EtcdStore) -> None:
    """Wait for the first connection."""
    async with asyncio.timeout(20):
        await store.connected(beyond=0)


def copy_all(sources: Sequence[str | Path], targets: Sequence[str | Path]) -> None:
    for source, target in zip(sources, targets, strict=True):
        shutil.copyfile(source, target)


async def failure(store: EtcdStore) -> StoreError:
    try:
        await store.get("a")
    except StoreError as error:
        return error
    raise AssertionError("it was expected to fail")


async def test_a_server_is_checked_by_its_name_and_dialled_by_its_alias(secure: Etcd) -> None:
    name = "rome.mesh.cilium.io"
    config = secure.config(host_aliases={name: ("127.0.0.1",)})
    mesh = EtcdConfig.of(
        f"https://{name}:{secure.port}",
        trusted_ca_file=config.trusted_ca_file,
        cert_file=config.cert_file,
        key_file=config.key_file,
        host_aliases={name: ["127.0.0.1"]},
        **QUICK,
    )
    async with open_etcd(mesh) as store:
        await once(store)
        assert await store.get("a") is None
    wrong = EtcdConfig.of(
        f"https://rome.example.org:{secure.port}",
        trusted_ca_file=config.trusted_ca_file,
        cert_file=config.cert_file,
        key_file=config.key_file,
        host_aliases={"rome.example.org": ["127.0.0.1"]},
        **QUICK,
    )
    async with open_etcd(wrong) as store:
        assert isinstance(await failure(store), Unavailable)


async def test_certificates_are_read_again_for_each_connection(tmp_path: Path) -> None:
    with running_etcd(tls=True) as etcd:
        config = etcd.config("someone")
        async with open_etcd(config) as store:
            await once(store)
            good = [tmp_path / "good.crt", tmp_path / "good.key"]
            foreign = Authority(tmp_path, "stranger-ca").issue("someone")
            mine = [config.cert_file, config.key_file]
            copy_all(mine, good)
            copy_all(foreign, mine)
            assert await store.get("a") is None, "a connection that stands is not disturbed"
            store.reconnect("to see what happens")
            await asyncio.sleep(0.5)
            assert isinstance(await failure(store), Unavailable)
            copy_all(good, mine)
            async with asyncio.timeout(20):
                await store.connected(beyond=1)
            assert await store.get("a") is None


async def test_a_missing_certificate_is_named_and_waited_for(secure: Etcd, tmp_path: Path) -> None:
    reports: list[str | None] = []
    there = secure.config()
    late = tmp_path / "late.crt"
    config = msgspec.structs.replace(there, cert_file=str(late))
    async with open_etcd(config, report=reports.append) as store:
        error = await failure(store)
        assert isinstance(error, Unavailable)
        assert f"{late} cannot be read: No such file or directory" in str(error)
        assert "connecting again in" in str(reports[-1])
        assert "not connected" in store.status_text()
        copy_all([there.cert_file], [late])
        await once(store)
        assert reports[-1] is None


async def test_a_dead_endpoint_is_passed_over() -> None:
    with running_etcd() as etcd:
        dead = [f"http://127.0.0.1:{free_port()}" for _ in range(3)]
        for seed in range(4):
            config = EtcdConfig.of(*dead, etcd.url, **QUICK)
            async with open_etcd(config, random=Random(seed)) as store:
                await once(store)
                assert etcd.url in store.status_text()


async def test_to_leave_an_endpoint_is_to_go_to_the_next() -> None:
    with running_etcd() as one, running_etcd() as two:
        async with open_etcd(EtcdConfig.of(one.url, two.url, **QUICK)) as store:
            await once(store)
            seen = {store.status_text()}
            store.reconnect("no heartbeat")
            assert "no heartbeat" in str(await failure(store))
            async with asyncio.timeout(20):
                await store.connected(beyond=1)
            seen.add(store.status_text())
            assert len(seen) == 2


async def test_another_etcd_behind_the_same_address_is_noticed() -> None:
    """Replicas of an apiserver have an etcd each, behind one address (contract kvstore 5.2)."""
    with running_etcd() as one, running_etcd(options=["--initial-cluster-token=two"]) as two:
        async with (
            proxy_to(one.port) as proxy,
            open_etcd(EtcdConfig.of(proxy.url, **QUICK)) as store,
        ):
            await once(store)
            await store.commit([PutOp("k/a", b"1")])
            seen = await end_of(store, "k/")
            first = store.cluster_id
            proxy._target = two.port
            proxy.cut()
            proxy.heal()
            async with asyncio.timeout(20):
                await store.connected(beyond=1)
            assert store.cluster_id != first
            async with ending(store.changes("k/", after=seen)) as batches:
                with pytest.raises(OtherPast, match="answers now"):
                    await anext(batches)


async def test_an_etcd_that_is_not_there_is_said_to_be_not_there() -> None:
    reports: list[str | None] = []
    url = f"http://127.0.0.1:{free_port()}"
    async with open_etcd(EtcdConfig.of(url, **QUICK), report=reports.append) as store:
        assert "Connection refused" in str(await failure(store))
        await asyncio.sleep(0.5)
        assert store.status_text().startswith(f"etcd: not connected: {url}: ")
        assert len(reports) > 1
        assert all("connecting again in" in str(report) for report in reports)


async def test_what_happens_inside_the_block_comes_out_as_itself() -> None:
    with pytest.raises(Denied, match="mine"):
        async with open_etcd(EtcdConfig.of("http://127.0.0.1:1", **QUICK)):
            raise Denied("mine")


async def test_an_etcd_that_comes_late_is_met_within_the_ceiling() -> None:
    with running_etcd() as etcd:
        etcd.kill()
        async with open_etcd(etcd.config()) as store:
            await asyncio.sleep(1)
            etcd.start()
            await once(store)
            assert await store.get("a") is None
