"""The same steps cause the same writes, in the same order, as with the real program."""

import json
from collections.abc import Callable

import msgspec
import pytest

from clustermesh.export import Exporter, ExportSettings, KeyChanges
from clustermesh.sources import objects
from clustermesh.sources.objects import KubernetesObject, ObjectKind, Ref
from clustermesh.sources.port import Upsert
from tests.support.golden import reduced
from tests.support.manifests import drop, feed, load
from tests.support.vectors import APISERVER

Step = Callable[[Exporter], KeyChanges]


def recorded_events() -> list[tuple[str, list[tuple[str, str, bytes]]]]:
    """Per ``##`` line: its text, and (verb, key, value) of the events that followed it."""
    steps: list[tuple[str, list[tuple[str, str, bytes]]]] = []
    text = (APISERVER / "lifecycle-shared-only.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith("## "):
            steps.append((line.split(" ", 2)[2], []))
            continue
        _, verb, rest = line.split(" ", 2)
        key, _, rest = rest.partition(" lease=")
        value = rest.split(" ", 2)[2] if verb == "PUT" else ""
        steps[-1][1].append((verb, key, value.encode()))
    return steps


def started() -> Exporter:
    exporter = Exporter(ExportSettings(cluster="cl1", cluster_id=7))
    feed(exporter, load(APISERVER / "objects.yaml"))
    return exporter


def edited(exporter: Exporter, kind: ObjectKind, name: str, **changes: object) -> KeyChanges:
    """Merge-patch an object as kubectl would (None removes a field) and hand it over."""
    namespace, _, short = name.rpartition("/")
    old = exporter.known()[Ref(kind, namespace, short)]
    raw = json.loads(msgspec.json.encode(old))
    patched(raw, {key.replace("_", "-"): value for key, value in changes.items()})
    return exporter.apply(kind, [Upsert(objects.convert(kind, raw))])


def patched(target: dict[str, object], patch: dict[str, object]) -> None:
    for key, value in patch.items():
        inner = target.get(key)
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict) and isinstance(inner, dict):
            patched(inner, value)
        else:
            target[key] = value


def gone(exporter: Exporter, kind: ObjectKind, name: str) -> KeyChanges:
    namespace, _, short = name.rpartition("/")
    return drop(exporter, exporter.known()[Ref(kind, namespace, short)])


def annotate(name: str, key: str, value: str | None) -> Step:
    return lambda x: edited(x, ObjectKind.SERVICE, name, metadata={"annotations": {key: value}})


def moved_endpoint(exporter: Exporter) -> KeyChanges:
    addressing = {"networking": {"addressing": [{"ipv4": "10.1.0.99"}]}}
    return edited(exporter, ObjectKind.CILIUM_ENDPOINT, "web/noident", status=addressing)


def new_slice(exporter: Exporter) -> KeyChanges:
    slice_: KubernetesObject = objects.EndpointSlice(
        metadata=objects.Meta(
            name="no-slice-a",
            namespace="web",
            labels={"kubernetes.io/service-name": "no-slice"},
        ),
        endpoints=(objects.Endpoint(addresses=("10.1.9.50",)),),
        ports=(objects.EndpointPort(name="http", port=8080),),
    )
    return feed(exporter, [slice_])


STEPS: list[Step] = [
    annotate("web/global-basic", "service.cilium.io/global", None),
    annotate("web/shared-true", "service.cilium.io/shared", "false"),
    lambda x: gone(x, ObjectKind.ENDPOINT_SLICE, "web/multi-b"),
    lambda x: gone(x, ObjectKind.ENDPOINT_SLICE, "web/nosel-a"),
    new_slice,
    lambda x: gone(x, ObjectKind.SERVICE, "web/unnamed"),
    lambda x: gone(x, ObjectKind.CILIUM_ENDPOINT, "web/web-0"),
    lambda x: gone(x, ObjectKind.CILIUM_ENDPOINT, "db/same-ip-as-web-1"),
    moved_endpoint,
    lambda x: edited(
        x, ObjectKind.CILIUM_ENDPOINT, "db/plain", metadata={"labels": {"new": "label"}}
    ),
    lambda x: gone(x, ObjectKind.CILIUM_NODE, "node-b"),
    lambda x: edited(x, ObjectKind.CILIUM_NODE, "node-a", metadata={"labels": {"new": "label"}}),
    lambda x: gone(x, ObjectKind.CILIUM_IDENTITY, "70003"),
    lambda x: edited(x, ObjectKind.CILIUM_IDENTITY, "70001", security_labels={"k8s:added": "1"}),
]

# Contract kvstore 12.more: stale in the real program, not to be copied. We depend on the present
# objects only: without a slice there is no key, and an address that is still held stays.
OTHERWISE = {
    "delete EndpointSlice web/nosel-a (the only one)": [
        ("DELETE", "cilium/state/services/v1/cl1/web/nosel")
    ],
    "delete CiliumEndpoint db/same-ip-as-web-1 (10.1.0.11 still held by web/web-1)": [
        ("PUT", "cilium/state/ip/v1/default/10.1.0.11")
    ],
}


def shown(changes: KeyChanges) -> list[tuple[str, str, bytes]]:
    return [
        ("DELETE" if value is None else "PUT", key, reduced(key, value) if value else b"")
        for key, value in changes
        if not key.startswith("clustermesh/local/")
    ]


def test_each_step_causes_the_recorded_events_in_their_order() -> None:
    exporter = started()
    recorded = recorded_events()
    assert len([text for text, _ in recorded if "SIGTERM" not in text]) >= len(STEPS)
    for step, (text, events) in zip(STEPS, recorded, strict=False):
        found = shown(step(exporter))
        if text in OTHERWISE:
            assert [event[:2] for event in found] == OTHERWISE[text], text
            continue
        assert found == [
            (verb, key, reduced(key, value) if value else b"") for verb, key, value in events
        ], text


@pytest.mark.parametrize("text", sorted(OTHERWISE))
def test_the_steps_that_differ_are_in_the_recording(text: str) -> None:
    assert text in [step for step, _ in recorded_events()]


def test_an_exporter_that_starts_after_the_steps_wants_the_same_keys() -> None:
    exporter = started()
    for step in STEPS:
        step(exporter)
    fresh = Exporter(ExportSettings(cluster="cl1", cluster_id=7))
    feed(fresh, exporter.known().values())
    assert fresh.wanted() == exporter.wanted()
