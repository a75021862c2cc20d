"""A directory of manifests imports: agents find derived services in the private tree."""

from typing import Any

from clustermesh import local
from clustermesh.export.mcs import derived_name
from tests.support.apiserver import Apiserver, contents, service, slice_of, until
from tests.support.etcd import Etcd
from tests.support.mcs import SPACE, export
from tests.support.mcs_cluster import OtherCluster

DERIVED = derived_name(SPACE, "cart")
LOCAL = f"{local.SERVICES_PREFIX}{SPACE}/{DERIVED}"
SHARED = f"cilium/state/services/v1/paris/{SPACE}/{DERIVED}"
EXPORTED = f"cilium/state/serviceexports/v1/paris/{SPACE}/cart"
SERVICE_EXPORT: dict[str, Any] = {
    "apiVersion": "multicluster.x-k8s.io/v1alpha1",
    "kind": "ServiceExport",
    "metadata": {
        "name": "cart",
        "namespace": SPACE,
        "creationTimestamp": "2026-11-20T11:00:00Z",
    },
}


def flags(rome: OtherCluster) -> tuple[str, ...]:
    return ("--mcs-api", f"--clustermesh-config={rome.remotes}")


async def derived(etcd: Etcd) -> local.LocalService | None:
    found = await contents(etcd, LOCAL)
    return local.decode(LOCAL, found[LOCAL].value) if LOCAL in found else None


async def is_there(etcd: Etcd) -> bool:
    return await derived(etcd) is not None


async def is_gone(etcd: Etcd) -> bool:
    return await derived(etcd) is None


async def imports(apiserver: Apiserver) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await apiserver.status())["imports"]
    return found


async def test_an_export_elsewhere_comes_and_goes(
    apiserver: Apiserver, etcd: Etcd, rome: OtherCluster
) -> None:
    rome.join()
    await rome.begin(export("rome"))
    await apiserver.ready(*flags(rome))
    await until(lambda: is_there(etcd))
    found = await derived(etcd)
    assert found is not None
    assert (found.is_global, found.shared) == (True, False)
    assert found.frontends[0].address.startswith("198.19.")
    (state,) = await imports(apiserver)
    assert state["clusters"] == ["rome"]
    (remote,) = (await apiserver.status())["remotes"]
    assert (remote["ready"], remote["num-service-exports"]) == (True, 1)
    await rome.drop(export("rome"))
    await until(lambda: is_gone(etcd))
    await rome.put(export("rome"))
    await until(lambda: is_there(etcd))
    rome.leave()
    await until(lambda: is_gone(etcd))
    assert await imports(apiserver) == []


async def test_an_export_here_and_an_older_one_elsewhere(
    apiserver: Apiserver, etcd: Etcd, rome: OtherCluster
) -> None:
    apiserver.manifest("cart", service("cart"), slice_of("cart", "10.7.0.44"), SERVICE_EXPORT)
    rome.join()
    await rome.begin(export("rome", type="Headless"))
    await apiserver.ready(*flags(rome))

    async def conflicting() -> bool:
        return any(each["conflict"] for each in await imports(apiserver))

    await until(conflicting)
    (state,) = await imports(apiserver)
    assert (state["type"], state["export"]) == ("Headless", "Valid")
    assert state["clusters"] == ["paris", "rome"]
    assert state["conflict"].startswith("type: paris of 2 clusters disagree")
    found = await contents(etcd)
    assert b'"10.7.0.44"' in found[SHARED].value
    assert EXPORTED in found


async def test_a_restart_beside_a_dead_cluster_loses_nothing_of_it(
    apiserver: Apiserver, etcd: Etcd, rome: OtherCluster
) -> None:
    rome.join()
    await rome.begin(export("rome"))
    await apiserver.ready(*flags(rome))
    await until(lambda: is_there(etcd))
    before = await derived(etcd)
    apiserver.stop()
    rome.etcd.kill()
    await apiserver.ready(*flags(rome))
    assert await derived(etcd) == before
    assert not (await apiserver.status())["remotes"][0]["connected"]
    rome.etcd.start()

    async def known() -> bool:
        return bool(await imports(apiserver))

    await until(known)
    assert await derived(etcd) == before, "it has the address that it had"


async def test_a_cluster_that_knows_no_exports_is_done_at_once(
    apiserver: Apiserver, rome: OtherCluster
) -> None:
    rome.join()
    await rome.begin(enabled=None)
    await apiserver.ready(*flags(rome))

    async def ready() -> bool:
        return bool((await apiserver.status())["remotes"][0]["ready"])

    await until(ready)


async def test_validate_names_the_files_of_other_clusters_that_are_no_good(
    apiserver: Apiserver, rome: OtherCluster
) -> None:
    (rome.remotes / "rome").write_text("endpoints: 3\n")
    (rome.remotes / "No_Name").write_text("endpoints: []\n")
    code, text = apiserver.run(*flags(rome), "--validate")
    assert code == 1
    assert f"{rome.remotes}/rome: $.endpoints: Expected `array`" in text
    assert f"{rome.remotes}/No_Name: the file's name is no cluster name" in text


def test_a_range_of_addresses_that_is_none_is_refused(apiserver: Apiserver) -> None:
    code, text = apiserver.run("--clusterset-cidrs=198.19.0.1/16")
    assert code == 2
    assert "--clusterset-cidrs: 198.19.0.1/16 has host bits set" in text
    assert text.count("\n") == 1
