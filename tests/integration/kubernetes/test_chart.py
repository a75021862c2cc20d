"""What the chart grants is enough for what the apiserver does, and is enforced."""

from pathlib import Path

import msgspec
import pytest

from clustermesh.export import Exporter, ExportSettings, Flavour
from clustermesh.keys import identity_range
from clustermesh.sources.kubernetes.api import Api
from clustermesh.sources.kubernetes.resources import Flavour as Served
from clustermesh.sources.kubernetes.source import KubernetesSource
from tests.support.kube import manifests as make
from tests.support.kube.chart import Chart
from tests.support.kube.follow import QUICK, task_of
from tests.support.kube.kubeserver import Opens, running
from tests.support.kube.sink import RecordingSink, eventually

RARE = {(verb, "meshidentities.clustermesh.io") for verb in ("get", "delete")}
"""Another replica was faster; every number has been given (test_identities.py)."""
CILIUM = {
    (verb, f"{plural}.cilium.io")
    for verb in ("list", "watch")
    for plural in ("ciliumnodes", "ciliumidentities", "ciliumendpoints")
}
UNUSED = {"least": RARE | CILIUM, "core": RARE}
"""By case; all of the case ``cilium`` is used in tests/integration/mcs/test_mcs_chart.py."""


@pytest.mark.parametrize("case", ["least", "cilium", "core"])
async def test_the_charts_permissions_are_enough(opens: Opens, tmp_path: Path, case: str) -> None:
    flavour = Served.CILIUM if case == "cilium" else Served.CORE
    export = ExportSettings(
        cluster="paris", cluster_id=7, flavour=Flavour(flavour), mcs_api=case == "cilium"
    )
    async with running(opens, tmp_path) as kube:
        await kube.admin.apply(make.MESH_IDENTITIES, make.SERVICE_EXPORTS, *make.CILIUM)
        await kube.admin.apply(make.pod("p1", "10.1.0.1"), make.cilium_node("n", "192.0.2.1", ""))
        chart = Chart(kube, case)
        await chart.install()
        settings = msgspec.structs.replace(
            QUICK,
            kubeconfig=chart.kubeconfig,
            namespace=chart.namespace,
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
        unused = chart.unused()
        if unused is not None and case in UNUSED:
            assert unused == UNUSED[case]
