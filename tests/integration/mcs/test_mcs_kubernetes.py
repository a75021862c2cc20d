"""Imports are objects of the API server: written by one replica, from present facts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from clustermesh.export.mcs import derived_name
from tests.support.apiserver import Apiserver, contents, until
from tests.support.etcd import Etcd, running_etcd
from tests.support.kube import manifests as make
from tests.support.kube import multicluster
from tests.support.kube.admin import Answer
from tests.support.kube.fake import fake_kube
from tests.support.kube.kubeserver import Kube, Opens, running
from tests.support.mcs import export
from tests.support.mcs_cluster import OtherCluster

SPACE = "default"
DERIVED = derived_name(SPACE, "cart")
CRDS = (make.MESH_IDENTITIES, *multicluster.crds())
IMPORT = {
    "apiVersion": "multicluster.x-k8s.io/v1alpha1",
    "kind": "ServiceImport",
    "metadata": {"name": "cart", "namespace": SPACE},
}
SERVICE = make.service(DERIVED)
COPY = make.endpoint_slice(f"{DERIVED}-a", DERIVED)


def flags(kube: Kube, rome: OtherCluster) -> tuple[str, ...]:
    return (
        "--source=kubernetes",
        f"--kubeconfig={kube.kubeconfig()}",
        "--kube-namespace=default",
        "--mcs-api",
        f"--clustermesh-config={rome.remotes}",
    )


@asynccontextmanager
async def serving(opens: Opens, folder: Path, *processes: Apiserver) -> AsyncIterator[Kube]:
    """An API server, which outlives those that talk to it."""
    async with running(opens, folder) as kube:
        await kube.admin.apply(*CRDS)
        try:
            yield kube
        finally:
            for process in processes:
                await asyncio.to_thread(process.stop)


async def there(kube: Kube, manifest: dict[str, Any]) -> dict[str, Any] | None:
    try:
        return await kube.admin.get(manifest)
    except Answer as answer:
        if answer.code != 404:
            raise
        return None


async def made(kube: Kube) -> dict[str, Any]:
    """Wait for the derived Service; the API server gives it an address."""
    await until(lambda: there(kube, SERVICE))
    return await kube.admin.get(SERVICE)


def of_default(cluster: str, **changes: object) -> Any:
    return export(cluster, namespace=SPACE, **changes)


async def test_an_export_elsewhere_becomes_an_import_with_an_address(
    tmp_path: Path, apiserver: Apiserver, etcd: Etcd, rome: OtherCluster, opens: Opens
) -> None:
    async with serving(opens, tmp_path, apiserver) as kube:
        rome.join()
        await rome.begin(of_default("rome", labels={"team": "a"}))
        await apiserver.ready(*flags(kube, rome))
        service = await made(kube)
        assert service["metadata"]["annotations"]["service.cilium.io/global"] == "true"
        assert service["metadata"]["annotations"]["service.cilium.io/shared"] == "false"
        assert service["metadata"]["labels"]["team"] == "a"
        ip = service["spec"]["clusterIP"]

        async def complete() -> bool:
            found = await there(kube, IMPORT)
            return found is not None and found["spec"].get("ips") == [ip]

        await until(complete)
        found = await kube.admin.get(IMPORT)
        assert found["status"]["clusters"] == [{"cluster": "rome"}]
        assert found["spec"]["ports"] == [{"name": "http", "port": 80, "protocol": "TCP"}]
        local = f"clustermesh/local/v1/services/{SPACE}/{DERIVED}"
        assert ip.encode() in (await contents(etcd, local))[local].value
        await rome.drop(of_default("rome"))

        async def gone() -> bool:
            return await there(kube, IMPORT) is None and await there(kube, SERVICE) is None

        await until(gone)


async def test_conditions_of_an_export_and_copies_of_its_endpoints(
    tmp_path: Path, apiserver: Apiserver, etcd: Etcd, rome: OtherCluster, opens: Opens
) -> None:
    exported = make.service_export("cart")

    async def condition(kube: Kube, type_: str) -> tuple[str, str]:
        status = (await kube.admin.get(exported)).get("status", {})
        found = {each["type"]: each for each in status.get("conditions", ())}
        each = found.get(type_, {})
        return each.get("status", ""), each.get("reason", "")

    async def says(kube: Kube, type_: str, *expected: str) -> bool:
        return await condition(kube, type_) == expected

    async with serving(opens, tmp_path, apiserver) as kube:
        await kube.admin.apply(exported)
        rome.join()
        await rome.begin()
        await apiserver.ready(*flags(kube, rome))
        await until(lambda: says(kube, "Valid", "False", "NoService"))
        await kube.admin.apply(
            make.service("cart", "10.96.3.99"), make.endpoint_slice("cart-a", "cart", "10.7.0.44")
        )
        await until(lambda: says(kube, "Valid", "True", "Valid"))
        await until(lambda: says(kube, "Conflict", "False", "NoConflicts"))
        await until(lambda: there(kube, COPY))
        assert (await kube.admin.get(COPY))["endpoints"][0]["addresses"] == ["10.7.0.44"]
        shared = f"cilium/state/services/v1/paris/{SPACE}/{DERIVED}"

        async def published(address: bytes) -> bool:
            found = await contents(etcd, shared)
            return shared in found and address in found[shared].value

        await until(lambda: published(b'"10.7.0.44"'))
        await kube.admin.apply(make.endpoint_slice("cart-a", "cart", "10.7.0.45"))
        await until(lambda: published(b'"10.7.0.45"'))
        await rome.put(of_default("rome", created="2020-01-01T00:00:00Z", type="Headless"))
        await until(lambda: says(kube, "Conflict", "True", "TypeConflict"))
        await kube.admin.delete(exported)
        await until(lambda: gone_from(etcd, shared))
        await until(lambda: is_headless(kube))


async def is_headless(kube: Kube) -> bool:
    found = await there(kube, SERVICE)
    return found is not None and found["spec"].get("clusterIP") == "None"


async def gone_from(etcd: Etcd, key: str) -> bool:
    return key not in await contents(etcd, key)


async def test_a_service_that_has_the_name_already_is_refused_alone(
    tmp_path: Path, apiserver: Apiserver, rome: OtherCluster, opens: Opens
) -> None:
    async with serving(opens, tmp_path, apiserver) as kube:
        theirs = make.service(DERIVED, "10.96.3.98")
        await kube.admin.apply(theirs)
        rome.join()
        other = of_default("rome", name="web")
        await rome.begin(of_default("rome"), other)
        await apiserver.ready(*flags(kube, rome))
        await until(lambda: there(kube, make.service(derived_name(SPACE, "web"))))

        async def refused() -> list[str]:
            found = (await apiserver.status())["refusals"]
            return [
                each["reason"] for each in found if each["what"] == f"ServiceImport {SPACE}/cart"
            ]

        (reason,) = await until(refused)
        assert f"is that of Service {SPACE}/{DERIVED}" in reason
        kept = await kube.admin.get(theirs)
        assert "annotations" not in kept["metadata"]
        await kube.admin.delete(theirs)
        await until(lambda: there(kube, SERVICE))


async def test_of_two_replicas_one_writes_and_the_other_takes_over(
    tmp_path: Path, apiserver: Apiserver, rome: OtherCluster
) -> None:
    async with serving(fake_kube, tmp_path, apiserver) as kube:
        rome.join()
        await rome.begin(of_default("rome"))
        with (
            running_etcd(tls=True) as second,
            Apiserver(tmp_path / "replica", second) as replica,
        ):
            await apiserver.ready(*flags(kube, rome))
            await made(kube)
            await replica.ready(*flags(kube, rome))
            await asyncio.to_thread(apiserver.stop)  # it says good-bye to the API server here
            await rome.put(of_default("rome", labels={"team": "b"}))

            async def labelled() -> bool:
                return "team" in (await kube.admin.get(SERVICE))["metadata"]["labels"]

            await until(labelled)


async def test_a_cluster_that_is_away_at_the_start_is_still_believed(
    tmp_path: Path, apiserver: Apiserver, rome: OtherCluster
) -> None:
    async with serving(fake_kube, tmp_path, apiserver) as kube:
        rome.join()
        await rome.begin(of_default("rome"))
        await apiserver.ready(*flags(kube, rome))
        before = await made(kube)
        await asyncio.to_thread(apiserver.stop)  # it says good-bye to the API server here
        rome.etcd.kill()
        await apiserver.ready(*flags(kube, rome))
        await kube.admin.apply(make.service("cart", "10.96.3.97"), make.service_export("cart"))

        async def heard() -> bool:
            return bool((await apiserver.status())["imports"])

        await until(heard)
        after = await kube.admin.get(SERVICE)
        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        assert after["metadata"]["annotations"]["service.cilium.io/shared"] == "false"
        rome.etcd.start()

        async def shared() -> bool:
            found = await kube.admin.get(SERVICE)
            return bool(found["metadata"]["annotations"]["service.cilium.io/shared"] == "true")

        await until(shared)
