"""Numbers of flavour core: recorded in the API server, given by one replica, equal in all."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from clustermesh.export import Exporter, ExportSettings, Flavour
from clustermesh.identities.allocator import preferred
from clustermesh.keys import identity_range
from clustermesh.sources.kubernetes.api import Api
from clustermesh.sources.kubernetes.lease import Lease, LeaseSettings
from clustermesh.sources.kubernetes.records import Numbers
from clustermesh.sources.kubernetes.resources import Flavour as Served
from clustermesh.sources.kubernetes.source import KubernetesSource
from clustermesh.sources.objects import ObjectKind as Kind
from tests.support.kube import manifests as make
from tests.support.kube.follow import QUICK, task_of
from tests.support.kube.kubeserver import Kube, Opens, running
from tests.support.kube.sink import PATIENCE, RecordingSink, eventually

CRD = make.MESH_IDENTITIES
RANGE = identity_range(7, 255)
EXPORT = ExportSettings(cluster="paris", cluster_id=7, flavour=Flavour.CORE)


@dataclass
class Replica:
    """One apiserver's share: source, numbers, exporter."""

    sink: RecordingSink
    numbers: Numbers
    exporter: Exporter

    def about_pods(self) -> dict[str, bytes]:
        """What it publishes about pods."""
        wanted = self.exporter.wanted()
        return {k: v for k, v in wanted.items() if "/identities/" in k or "/ip/" in k}


@contextlib.asynccontextmanager
async def replica(kube: Kube, name: str, numbers: range = RANGE) -> AsyncIterator[Replica]:
    settings = msgspec.structs.replace(
        QUICK, kubeconfig=kube.kubeconfig(), holder=name, lease_duration=2.0, namespace="default"
    )
    async with Api(settings) as api:
        source = KubernetesSource(api, Served.CORE, settings).only(EXPORT.kinds)
        given = source.numbered(numbers)
        sink, exporter = RecordingSink(), Exporter(EXPORT, given)
        sink.kinds, sink.on_apply = source.kinds, exporter.apply
        given.in_use, given.decided = exporter.has_identity, exporter.decided
        async with task_of(source.run(sink)):
            yield Replica(sink, given, exporter)


async def records(kube: Kube) -> dict[str, str]:
    found = await kube.admin.call("GET", "/apis/clustermesh.io/v1alpha1/meshidentities")
    return {item["metadata"]["name"]: item["spec"]["labels"] for item in found["items"]}


async def test_replicas_publish_equal_numbers_that_are_recorded(
    opens: Opens, tmp_path: Path
) -> None:
    async with running(opens, tmp_path) as kube:
        await kube.admin.apply(CRD, *(make.pod(f"p{n}", f"10.1.0.{n}") for n in range(1, 6)))
        async with replica(kube, "one") as one, replica(kube, "two") as two:
            await one.sink.until(lambda: one.sink.complete)
            await two.sink.until(lambda: two.sink.complete)
            assert len(one.about_pods()) == 10
            assert one.about_pods() == two.about_pods()
            for number, labels in (await records(kube)).items():
                assert int(number) == preferred(labels, RANGE)
            await kube.admin.apply(make.pod("later", "10.1.0.9"))
            await eventually(
                lambda: len(one.about_pods()) == 12 and one.about_pods() == two.about_pods()
            )
            before = one.about_pods()
        async with replica(kube, "three") as three:
            await three.sink.until(lambda: three.sink.complete)
            assert three.about_pods() == before, "also after a restart with nothing but the records"


LEASE = "/apis/coordination.k8s.io/v1/namespaces/default/leases/clustermesh-identities"


async def holder(kube: Kube) -> str:
    lease = await kube.admin.call("GET", LEASE)
    return str(lease["spec"]["holderIdentity"])


async def test_another_replica_takes_over(opens: Opens, tmp_path: Path) -> None:
    async with running(opens, tmp_path) as kube:
        await kube.admin.apply(CRD)
        async with replica(kube, "one") as one:
            async with replica(kube, "two") as two:
                await one.sink.until(lambda: one.sink.complete)
                await two.sink.until(lambda: two.sink.complete)
                await kube.admin.apply(make.pod("p1", "10.1.0.1"))
                await eventually(
                    lambda: len(one.about_pods()) == 2 and one.about_pods() == two.about_pods()
                )
                stolen = {"spec": {"holderIdentity": "dead", "leaseDurationSeconds": 2}}
                await kube.admin.call("PATCH", LEASE, stolen, "application/merge-patch+json")
                await kube.admin.apply(make.pod("p2", "10.1.0.2"))
                await eventually(
                    lambda: len(one.about_pods()) == 4 and one.about_pods() == two.about_pods()
                )
                async with asyncio.timeout(PATIENCE):
                    while await holder(kube) not in {"one", "two"}:  # noqa: ASYNC110
                        await asyncio.sleep(0.1)
            await kube.admin.apply(make.pod("p3", "10.1.0.3"))
            await eventually(lambda: len(one.about_pods()) == 6)
            assert await holder(kube) == "one"


async def test_a_deleted_record_in_use_is_written_again(opens: Opens, tmp_path: Path) -> None:
    async with running(opens, tmp_path) as kube:
        await kube.admin.apply(CRD, make.pod("p1", "10.1.0.1"))
        async with replica(kube, "one") as one:
            await one.sink.until(lambda: one.sink.complete)
            (number,) = await records(kube)
            await kube.admin.call(
                "DELETE", f"/apis/clustermesh.io/v1alpha1/meshidentities/{number}"
            )
            await eventually(lambda: Kind.MESH_IDENTITY in {r.kind for r in one.sink.removed})
            await eventually(
                lambda: (
                    [r.name for r in one.sink.upserts if r.kind is Kind.MESH_IDENTITY].count(number)
                    == 2
                )
            )
            assert list(await records(kube)) == [number]


async def test_collisions_probe_and_a_full_range_gives_away_what_is_unused(
    opens: Opens, tmp_path: Path
) -> None:
    small = RANGE[:3]
    async with running(opens, tmp_path) as kube:
        await kube.admin.apply(CRD, *(make.pod(f"p{n}", f"10.1.0.{n}") for n in range(1, 4)))
        async with replica(kube, "one", small) as one:
            await one.sink.until(lambda: one.sink.complete)
            assert {int(each) for each in await records(kube)} == set(small)
            await kube.admin.apply(make.pod("p4", "10.1.0.4"))
            await eventually(lambda: Kind.MESH_IDENTITY in one.sink.troubles)
            assert "all 3 numbers" in one.sink.troubles[Kind.MESH_IDENTITY]
            await kube.admin.delete(make.pod("p2", "10.1.0.2"))
            await eventually(lambda: any("10.1.0.4" in key for key in one.about_pods()))
            assert len(one.about_pods()) == 6
            await eventually(lambda: not one.sink.troubles)


async def test_a_lease_has_one_holder_at_a_time(opens: Opens, tmp_path: Path) -> None:
    async with running(opens, tmp_path) as kube:
        settings = msgspec.structs.replace(QUICK, kubeconfig=kube.kubeconfig())
        async with Api(settings) as api, asyncio.TaskGroup() as tasks:
            leases = [
                Lease(
                    api,
                    LeaseSettings(namespace="default", holder=f"r{n}", duration=2.0, renew=0.2),
                )
                for n in range(3)
            ]
            runs = [tasks.create_task(each.run()) for each in leases]
            for _ in range(3):
                await eventually(lambda: sum(each.held for each in leases) == 1)
                holder = next(n for n, each in enumerate(leases) if each.held)
                runs[holder].cancel()
                await eventually(lambda n=holder: not leases[n].held)
                await eventually(lambda: sum(each.held for each in leases) <= 1)
            assert not any(each.held for each in leases)
