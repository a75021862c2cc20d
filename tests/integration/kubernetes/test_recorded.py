"""What the real program was given, through an API server: the keys are those that it wrote."""

from pathlib import Path

import pytest
import yaml

from clustermesh import keys, model
from clustermesh.export import Exporter, ExportSettings, cluster_config
from clustermesh.sources.objects import ObjectKind
from tests.support.golden import comparable
from tests.support.kube import manifests as make
from tests.support.kube.follow import following
from tests.support.kube.kubeserver import Opens, running
from tests.support.kube.manifests import Manifest
from tests.support.manifests import feed
from tests.support.vectors import APISERVER, records

CASES = [
    ("etcd-shared-only.jsonl", ExportSettings(cluster="cl1", cluster_id=7)),
    ("etcd-mcsapi.jsonl", ExportSettings(cluster="cl1", cluster_id=7, mcs_api=True)),
]


def given() -> list[Manifest]:
    """The objects as kubectl created them, namespaces first; exports without what a server adds."""
    found: list[Manifest] = []
    for name in ("input-as-created.yaml", "mcs-objects.yaml"):
        for document in yaml.load_all((APISERVER / name).read_text(), yaml.CSafeLoader):
            found += document.get("items", [document]) if document else []
    ours = [each for each in found if each["kind"] in set(ObjectKind)]
    for each in ours:
        for field in ("resourceVersion", "uid", "creationTimestamp", "generation"):
            each["metadata"].pop(field, None)
    return sorted(ours, key=lambda each: each["kind"] != "Namespace")


@pytest.mark.parametrize(("recording", "settings"), CASES, ids=[name for name, _ in CASES])
async def test_keys_and_values_equal_the_recording(
    opens: Opens, tmp_path: Path, recording: str, settings: ExportSettings
) -> None:
    objects = given()
    async with running(opens, tmp_path) as kube:
        await kube.admin.apply(*make.CILIUM, make.SERVICE_EXPORTS)
        await kube.admin.apply(*objects)
        async with following(kube.kubeconfig()) as sink:
            await sink.until(lambda: sink.complete)
            assert not sink.refusals
            world = list(sink.objects.values())
    exporter = Exporter(settings)
    feed(exporter, world)
    config = model.encode_json(cluster_config(settings))
    ours = comparable({keys.cluster_config("cl1"): config, **exporter.wanted()}, world)
    theirs = comparable({each.key: each.value for each in records(APISERVER / recording)}, world)
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert ours[key] == value, key
