"""The cluster's objects as they are now, and what each touches."""

import sys
from collections.abc import Iterator

import msgspec

from clustermesh.export.services import service_of
from clustermesh.sources.objects import (
    CiliumEndpoint,
    CiliumEndpointSlice,
    EndpointSlice,
    KubernetesObject,
    Meta,
    Namespace,
    Node,
    ObjectKind,
    Pod,
    Ref,
    Service,
    ServiceExport,
    ref,
)

UNITS = frozenset(ObjectKind) - {
    ObjectKind.NAMESPACE,
    ObjectKind.SERVICE_EXPORT,
    ObjectKind.SERVICE_IMPORT,
}
"""Kinds whose objects claim keys; an object's name is what it claims them under."""


class Picture:
    """All objects by name, with the ways from one to those that depend on it."""

    def __init__(self) -> None:
        """An empty cluster."""
        self.objects: dict[Ref, KubernetesObject] = {}
        self._slices: dict[tuple[str, str], dict[str, EndpointSlice]] = {}
        self._pods_on: dict[str, set[Ref]] = {}
        self._inside: dict[str, set[Ref]] = {}

    def put(self, object_: KubernetesObject) -> Iterator[Ref]:
        """The object is now this. Yields the names of those whose keys this may change."""
        object_ = slimmed(object_)
        name = ref(object_)
        old = self.objects.get(name)
        if old == object_:
            return
        if old is not None:
            yield from self._affected(old)
            self._unlink(name, old)
        self.objects[name] = object_
        self._link(name, object_)
        yield from self._affected(object_)

    def drop(self, name: Ref) -> Iterator[Ref]:
        """The object is gone. Yields the names of those whose keys this may change."""
        old = self.objects.pop(name, None)
        if old is not None:
            self._unlink(name, old)
            yield from self._affected(old)

    def namespace(self, name: str) -> Namespace | None:
        """The namespace, if it is known."""
        found = self.objects.get(Ref(ObjectKind.NAMESPACE, "", name))
        return found if isinstance(found, Namespace) else None

    def node(self, name: str) -> Node | None:
        """The v1 Node, if it is known."""
        found = self.objects.get(Ref(ObjectKind.NODE, "", name))
        return found if isinstance(found, Node) else None

    def service(self, namespace: str, name: str) -> Service | None:
        """The service, if there is one."""
        found = self.objects.get(Ref(ObjectKind.SERVICE, namespace, name))
        return found if isinstance(found, Service) else None

    def service_export(self, namespace: str, name: str) -> ServiceExport | None:
        """The export of a service, if there is one."""
        found = self.objects.get(Ref(ObjectKind.SERVICE_EXPORT, namespace, name))
        return found if isinstance(found, ServiceExport) else None

    def slices(self, namespace: str, service: str) -> list[EndpointSlice]:
        """The slices of a service, ordered by name."""
        found = self._slices.get((namespace, service), {})
        return [found[name] for name in sorted(found)]

    def _affected(self, object_: KubernetesObject) -> Iterator[Ref]:
        name = ref(object_)
        if name.kind in UNITS:
            yield name
        match object_:
            case EndpointSlice() if service := service_of(object_):
                yield Ref(ObjectKind.SERVICE, name.namespace, service)
            case ServiceExport():
                yield Ref(ObjectKind.SERVICE, name.namespace, name.name)
            case Service():
                for slice_ in self._slices.get((name.namespace, name.name), ()):
                    yield Ref(ObjectKind.ENDPOINT_SLICE, name.namespace, slice_)
            case Namespace():
                yield from sorted(self._inside.get(name.name, ()))
            case Node():
                yield from sorted(self._pods_on.get(name.name, ()))
            case _:
                pass

    def _link(self, name: Ref, object_: KubernetesObject) -> None:
        for index, key in self._places(name, object_):
            index.setdefault(key, set()).add(name)
        if isinstance(object_, EndpointSlice) and (service := service_of(object_)):
            self._slices.setdefault((name.namespace, service), {})[name.name] = object_

    def _unlink(self, name: Ref, object_: KubernetesObject) -> None:
        for index, key in self._places(name, object_):
            index[key].discard(name)
            if not index[key]:
                del index[key]
        if isinstance(object_, EndpointSlice) and (service := service_of(object_)):
            of_service = self._slices[name.namespace, service]
            del of_service[name.name]
            if not of_service:
                del self._slices[name.namespace, service]

    def _places(
        self, name: Ref, object_: KubernetesObject
    ) -> Iterator[tuple[dict[str, set[Ref]], str]]:
        """The indexes that hold the object's name, and under what."""
        namespace = namespace_of(object_)
        if namespace and name.kind in UNITS:
            yield self._inside, namespace
        if isinstance(object_, Pod) and object_.spec.node_name:
            yield self._pods_on, object_.spec.node_name


def slimmed(object_: KubernetesObject) -> KubernetesObject:
    """The object without what is never published: there may be a million of them, and a change
    that only touches this is none."""
    meta = object_.metadata
    endpoint = isinstance(object_, CiliumEndpoint | CiliumEndpointSlice)
    kept = Meta(
        name=meta.name,
        namespace=sys.intern(meta.namespace),
        uid=meta.uid if isinstance(object_, Service) else "",
        creation_timestamp=meta.creation_timestamp if isinstance(object_, ServiceExport) else "",
        labels=None if endpoint else meta.labels,
        annotations=None if endpoint else meta.annotations,
    )
    return msgspec.structs.replace(object_, metadata=kept)


def namespace_of(object_: KubernetesObject) -> str:
    """The namespace whose settings decide about the object; empty for none."""
    match object_:
        case Namespace() | Node():
            return ""
        case _:
            inner = getattr(object_, "namespace", "") or object_.metadata.namespace
            labels = getattr(object_, "security_labels", {})
            return inner or labels.get("k8s:io.kubernetes.pod.namespace", "")
