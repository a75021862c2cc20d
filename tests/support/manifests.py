"""Kubernetes objects for tests: from YAML files, and small builders."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from clustermesh.export import Exporter, KeyChanges
from clustermesh.sources import objects
from clustermesh.sources.objects import KubernetesObject, ObjectKind
from clustermesh.sources.port import Removal, Upsert


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
