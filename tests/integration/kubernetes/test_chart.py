"""What the chart grants is enough for what the apiserver does, and is enforced."""

from pathlib import Path

import msgspec
import pytest

from clustermesh.export import Exporter, ExportSettings, Flavour
from clustermesh.keys import identity_range
from clustermesh.sources.kubernetes.api import Api
from clustermesh.sources.kubernetes.resources import Flavour as Served
from clustermesh.sources.kubernetes.source import KubernetesSource
from tests.support import helm
from tests.support.kube import manifests as make
from tests.support.kube.follow import QUICK, task_of
from tests.support.kube.kubeserver import READER, READER_TOKEN, Kube, Opens, running
from tests.support.kube.sink import RecordingSink, eventually


async def install(kube: Kube, case: str) -> None:
    """The chart's permissions, given to a user of the test."""
    _, objects = helm.golden(case)
    user = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": READER}
    for each in objects:
        if each["kind"].endswith("Binding"):
            each["subjects"] = [user]
        if each["apiVersion"].startswith("rbac."):
            await kube.admin.apply(each)


@pytest.mark.parametrize("case", ["least", "cilium", "core"])
async def test_the_charts_permissions_are_enough(opens: Opens, tmp_path: Path, case: str) -> None:
    flavour = Served.CILIUM if case == "cilium" else Served.CORE
    export = ExportSettings(
        cluster="paris", cluster_id=7, flavour=Flavour(flavour), mcs_api=case == "cilium"
    )
    async with running(opens, tmp_path) as kube:
        await kube.admin.apply(make.namespace("kube-system"))
        await kube.admin.apply(make.MESH_IDENTITIES, make.SERVICE_EXPORTS, *make.CILIUM)
        await kube.admin.apply(make.pod("p1", "10.1.0.1"), make.cilium_node("n", "192.0.2.1", ""))
        await install(kube, case)
        settings = msgspec.structs.replace(
            QUICK,
            kubeconfig=kube.kubeconfig("chart", token=READER_TOKEN),
            namespace="kube-system",
            lease_duration=2.0,
        )
        async with Api(settings) as api:
            source = KubernetesSource(api, flavour, settings).only(export.kinds)
            sink = RecordingSink()
            if flavour is Served.CORE:
                numbers = source.numbered(identity_range(7, 255))
                exporter = Exporter(export, numbers)
                sink.on_apply, numbers.decided = exporter.apply, exporter.decided
            sink.kinds = source.kinds
            async with task_of(source.run(sink)):
                await eventually(lambda: sink.complete or sink.troubles)
                assert not sink.troubles
                if flavour is Served.CORE:
                    assert any("10.1.0.1" in key for key in exporter.wanted())
