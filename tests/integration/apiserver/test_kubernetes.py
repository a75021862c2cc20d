"""The same objects give the same keys, whichever source they come through."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from clustermesh.sources.objects import ObjectKind
from tests.support.apiserver import Apiserver, contents, recording, until
from tests.support.etcd import Etcd, running_etcd
from tests.support.kube import manifests as make
from tests.support.kube.fake import fake_kube
from tests.support.kube.kubeserver import Kube, Opens, running
from tests.support.vectors import APISERVER

POD = "cilium/state/ip/v1/default/10.7.0.{}"
CORE = (
    make.MESH_IDENTITIES,
    make.node("n1", "192.0.2.11", "10.7.0.0/24"),
    make.pod("cart-0", "10.7.0.44"),
    make.pod("web-0", "10.7.0.45"),
    make.service("cart", "10.107.0.9", **{"service.cilium.io/global": "true"}),
    make.endpoint_slice("cart-a", "cart", "10.7.0.44"),
)


def recorded() -> list[dict[str, Any]]:
    """The objects of the recordings that anybody asks for, one by one."""
    document = yaml.load((APISERVER / "objects.yaml").read_text(), yaml.CSafeLoader)
    return [item for item in document["items"] if item["kind"] in set(ObjectKind)]


async def test_both_sources_publish_the_same(tmp_path: Path, etcd: Etcd) -> None:
    with (
        running_etcd(tls=True) as second,
        Apiserver(tmp_path / "files", etcd, cluster="cl1") as files,
        Apiserver(tmp_path / "api", second, cluster="cl1") as api,
    ):
        shutil.copy(APISERVER / "objects.yaml", files.manifests / "objects.yaml")
        await files.ready()
        async with running(fake_kube, tmp_path) as kube:
            await kube.admin.apply(*make.CILIUM)
            await kube.admin.apply(*recorded())
            await api.ready(*flags(kube))
            assert (await api.status())["source"] == "kubernetes"
            theirs = await values(second)
            ours = await values(etcd)
    # The test server has a namespace and no service of its own.
    assert theirs == ours


async def test_flavour_core_follows_an_api_server(
    tmp_path: Path, apiserver: Apiserver, etcd: Etcd, opens: Opens
) -> None:
    async with running(opens, tmp_path) as kube:
        await kube.admin.apply(make.MESH_IDENTITIES, *CORE)
        await apiserver.ready(*flags(kube))
        assert {POD.format(44), POD.format(45)} <= (await values(etcd)).keys()
        async with recording(etcd) as seen:
            await kube.admin.apply(make.endpoint_slice("cart-a", "cart", "10.7.0.44", "10.7.0.45"))
            await until(lambda: in_value(etcd, b"10.7.0.45"))
            await kube.admin.delete(make.pod("web-0", "10.7.0.45"))
            await until(lambda: is_gone(etcd, POD.format(45)))
        assert POD.format(45) in seen.deleted()


async def test_replicas_publish_the_same_also_after_one_lost_its_etcd(
    tmp_path: Path, apiserver: Apiserver, etcd: Etcd, opens: Opens
) -> None:
    async with running(opens, tmp_path) as kube:
        await kube.admin.apply(make.MESH_IDENTITIES, *CORE)
        with running_etcd(tls=True) as second, Apiserver(tmp_path / "other", second) as replica:
            await apiserver.ready(*flags(kube))
            await replica.ready(*flags(kube))
            before = await values(etcd)
            assert {POD.format(44), POD.format(45)} <= before.keys()
            assert await values(second) == before
            second.wipe()
            second.start()
            await second.ready()
            await until(lambda: holds(second, before))
            assert await values(etcd) == before
            await asyncio.to_thread(replica.stop)  # it says good-bye to the API server here


async def test_while_the_api_server_is_down_nothing_goes_and_nothing_beats(
    tmp_path: Path, apiserver: Apiserver, etcd: Etcd, opens: Opens
) -> None:
    async with running(opens, tmp_path) as kube:
        await kube.admin.apply(make.MESH_IDENTITIES, *CORE)
        await apiserver.ready(*flags(kube))
        await until(lambda: beats(apiserver))
        await kube.server.stop()
        await until(lambda: troubled(apiserver))
        before = await values(etcd)
        quiet = (await apiserver.status())["heartbeat"]
        async with recording(etcd) as seen:
            await kube.server.start()
            await until(lambda: beats(apiserver, since=quiet))
        assert set(seen.put()) == {"cilium/.heartbeat"}
        assert seen.deleted() == []
        assert await values(etcd) == before
        assert await apiserver.ask("GET /readyz") == (200, "Ready")


@pytest.mark.parametrize("content", ["", "clusters: ["])
def test_a_kubeconfig_that_is_none(apiserver: Apiserver, content: str) -> None:
    path = apiserver.folder / "kubeconfig"
    path.write_text(content)
    flags = ("--source=kubernetes", f"--kubeconfig={path}", "--log-level=error")
    code, text = apiserver.run(*flags)
    assert code == 1
    assert text.startswith("clustermesh-apiserver: no credentials for the Kubernetes API: ")
    assert text.endswith("; see --kubeconfig and --kube-context\n")
    assert text.count("\n") == 1


def flags(kube: Kube) -> tuple[str, ...]:
    kubeconfig = f"--kubeconfig={kube.kubeconfig()}"
    return ("--source=kubernetes", kubeconfig, "--kube-namespace=default")


async def values(etcd: Etcd) -> dict[str, bytes]:
    """Facts, without what is a time."""
    found = await contents(etcd)
    return {
        key: entry.value
        for key, entry in found.items()
        if "/synced/" not in key and key != "cilium/.heartbeat"
    }


async def holds(etcd: Etcd, wanted: dict[str, bytes]) -> bool:
    return await values(etcd) == wanted


async def in_value(etcd: Etcd, part: bytes) -> bool:
    key = "cilium/state/services/v1/paris/default/cart"
    return part in (await contents(etcd, key))[key].value


async def is_gone(etcd: Etcd, key: str) -> bool:
    return not await contents(etcd, key)


async def beats(apiserver: Apiserver, *, since: float = 0.0) -> bool:
    return bool((await apiserver.status())["heartbeat"] > since)


async def troubled(apiserver: Apiserver) -> bool:
    return any(line.startswith("source/") for line in (await apiserver.status())["trouble"])
