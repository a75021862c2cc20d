"""Kubernetes objects for tests: from YAML files, and small builders."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from clustermesh.export import Exporter, ExportSettings, KeyChanges
from clustermesh.sources import objects
from clustermesh.sources.objects import KubernetesObject, ObjectKind
from clustermesh.sources.port import Removal, Upsert

PARIS = ExportSettings(cluster="paris", cluster_id=7)


def made(kind: ObjectKind, name: str, namespace: str = "", **rest: Any) -> KubernetesObject:
    """An object read from JSON, as an API server would send it."""
    meta = {"name": name, "namespace": namespace, **rest.pop("metadata", {})}
    return objects.decode(kind, json.dumps({"metadata": meta, **rest}).encode())


def exported(*world: KubernetesObject, settings: ExportSettings = PARIS) -> dict[str, bytes]:
    """What other clusters see of these objects."""
    exporter = Exporter(settings)
    feed(exporter, world)
    return {
        key: value
        for key, value in exporter.wanted().items()
        if not key.startswith("clustermesh/local/")
    }


def load(path: Path) -> list[KubernetesObject]:
    """The objects of the kinds we know in a YAML file, lists opened, in the order of the file."""
    return [
        objects.convert(ObjectKind(item["kind"]), item)
        for document in yaml.load_all(path.read_text(encoding="utf-8"), yaml.CSafeLoader)
        for item in _items(document)
        if item["kind"] in set(ObjectKind)
    ]


def _items(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if document["kind"] == "List":
        yield from document["items"]
    else:
        yield document


def feed(exporter: Exporter, wanted: Iterable[KubernetesObject]) -> KeyChanges:
    """Hand objects over one by one, namespaces first; everything that changed."""
    changes: dict[str, bytes | None] = {}
    ordered = sorted(wanted, key=lambda each: not isinstance(each, objects.Namespace))
    for each in ordered:
        changes |= dict(exporter.apply(objects.ref(each).kind, [Upsert(each)]))
    return list(changes.items())


def drop(exporter: Exporter, gone: KubernetesObject) -> KeyChanges:
    """The object is gone; everything that changed."""
    ref = objects.ref(gone)
    return exporter.apply(ref.kind, [Removal(ref)])
