"""The same Kubernetes objects give the same keys and values as the real clustermesh-apiserver."""

from pathlib import Path

import pytest

from clustermesh import keys, model
from clustermesh.export import Exporter, ExportSettings, cluster_config
from tests.support.golden import comparable
from tests.support.manifests import feed, load
from tests.support.vectors import APISERVER, records

CASES = [
    ("etcd-shared-only.jsonl", ExportSettings(cluster="cl1", cluster_id=7)),
    ("etcd-max511.jsonl", ExportSettings(cluster="cl1", cluster_id=300, max_clusters=511)),
    ("etcd-mcsapi.jsonl", ExportSettings(cluster="cl1", cluster_id=7, mcs_api=True)),
]


@pytest.mark.parametrize(("recording", "settings"), CASES, ids=[name for name, _ in CASES])
@pytest.mark.parametrize("source", ["objects.yaml", "input-as-created.yaml"])
def test_keys_and_values_equal_the_recording(
    recording: str, settings: ExportSettings, source: str
) -> None:
    world = [*load(APISERVER / source), *load(APISERVER / "mcs-objects.yaml")]
    exporter = Exporter(settings)
    feed(exporter, world)
    config = model.encode_json(cluster_config(settings))
    ours = comparable({keys.cluster_config("cl1"): config, **exporter.wanted()}, world)
    recorded = {record.key: record.value for record in records(APISERVER / recording)}
    theirs = comparable(recorded, world)
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert ours[key] == value, key


def test_the_recordings_are_compared_in_full() -> None:
    sizes = {
        name: len(comparable({r.key: r.value for r in records(APISERVER / name)}, []))
        for name, _ in CASES
    }
    assert sizes == {
        "etcd-shared-only.jsonl": 56,
        "etcd-max511.jsonl": 56,
        "etcd-mcsapi.jsonl": 63,
    }


def test_what_could_not_be_published_is_said() -> None:
    exporter = Exporter(CASES[0][1])
    feed(exporter, load(APISERVER / "objects.yaml"))
    assert sorted(exporter.refusals()) == [
        ("CiliumEndpoint db/badip", "addressing[0].ipv4: 'not-an-ip' is not an IP address"),
        (
            "CiliumEndpoint web/web-1",
            "cilium/state/ip/v1/default/10.1.0.11 belongs to CiliumEndpoint db/same-ip-as-web-1",
        ),
        ("CiliumIdentity 70007", "security-labels: empty, expected at least one"),
        (
            "Service web/aff-bogus",
            "service.cilium.io/affinity: 'bogus', expected local, remote or none; none is used",
        ),
        (
            "Service web/fqdn-slice",
            "EndpointSlice fqdn-slice-a: addressType FQDN gives no backends",
        ),
    ]


def test_the_recordings_are_present() -> None:
    assert {path.name for path in Path(APISERVER).iterdir()} >= {name for name, _ in CASES}
