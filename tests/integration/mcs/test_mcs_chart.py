"""What the chart grants is enough for the MCS-API, and all of it is used."""

import asyncio
from pathlib import Path
from typing import Any

from clustermesh.export.mcs import derived_name
from tests.support.apiserver import Apiserver, until
from tests.support.kube import manifests as make
from tests.support.kube import multicluster
from tests.support.kube.admin import Answer
from tests.support.kube.chart import Chart
from tests.support.kube.kubeserver import Kube, Opens, running
from tests.support.mcs import export
from tests.support.mcs_cluster import OtherCluster

SPACE = "default"
DERIVED = derived_name(SPACE, "cart")
COPY = make.endpoint_slice(f"{DERIVED}-a", DERIVED)


def rome_says(**changes: object) -> Any:
    return export("rome", namespace=SPACE, **changes)


async def found(kube: Kube, manifest: dict[str, Any]) -> dict[str, Any]:
    """Empty when it is not there."""
    try:
        return await kube.admin.get(manifest)
    except Answer as answer:
        if answer.code != 404:
            raise
        return {}


async def test_every_permission_is_enough_and_used(
    tmp_path: Path, apiserver: Apiserver, rome: OtherCluster, opens: Opens
) -> None:
    exported = make.service_export("cart")
    service = make.service(DERIVED)
    imported = {**exported, "kind": "ServiceImport"}

    async def labelled(kube: Kube) -> bool:
        both = [await found(kube, each) for each in (service, imported)]
        return all(each.get("metadata", {}).get("labels", {}).get("team") == "b" for each in both)

    async def address(kube: Kube, ip: str) -> bool:
        return ip in str((await found(kube, COPY)).get("endpoints"))

    async def nothing(kube: Kube) -> bool:
        return not [each for each in (service, imported, COPY) if await found(kube, each)]

    async def said(kube: Kube) -> bool:
        conditions = (await found(kube, exported)).get("status", {}).get("conditions", ())
        return {each["type"] for each in conditions} >= {"Valid", "Conflict"}

    async def clusters(kube: Kube) -> bool:
        return bool((await found(kube, imported)).get("status", {}).get("clusters"))

    async with running(opens, tmp_path) as kube:
        chart = Chart(kube, "cilium")
        await kube.admin.apply(*multicluster.crds(), *make.CILIUM)
        await chart.install()
        rome.join()
        await rome.begin(rome_says(labels={"team": "a"}))
        await apiserver.ready(
            *("--source=kubernetes", "--flavour=cilium", "--mcs-api"),
            *(f"--kubeconfig={chart.kubeconfig}", f"--kube-namespace={chart.namespace}"),
            f"--clustermesh-config={rome.remotes}",
        )
        await until(lambda: clusters(kube))
        await rome.put(rome_says(labels={"team": "b"}))
        await until(lambda: labelled(kube))
        await kube.admin.apply(
            exported, make.service("cart"), make.endpoint_slice("cart-a", "cart", "10.7.0.44")
        )
        await until(lambda: address(kube, "10.7.0.44"))
        await kube.admin.apply(make.endpoint_slice("cart-a", "cart", "10.7.0.45"))
        await until(lambda: address(kube, "10.7.0.45"))
        await until(lambda: said(kube))
        status = await apiserver.status()
        assert (status["trouble"], status["refusals"]) == ([], [])
        await kube.admin.delete(exported)
        await rome.drop(rome_says())
        await until(lambda: nothing(kube))
        await asyncio.to_thread(apiserver.stop)  # it lets its lease go
        assert not chart.unused()
