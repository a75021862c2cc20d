"""The cluster's objects as they are now, and what each touches."""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import NamedTuple

from clustermesh.export.services import service_of
from clustermesh.sources.objects import (
    EndpointSlice,
    KubernetesObject,
    Namespace,
    Node,
    ObjectKind,
    Pod,
    Ref,
    Service,
    ServiceExport,
    ref,
)


class UnitKind(StrEnum):
    """What is worked out at one go."""

    NODE = "node"
    IDENTITY = "identity"
    ENDPOINT = "endpoint"
    SERVICE = "service"
    SLICE = "slice"


class Unit(NamedTuple):
    """One claimant of keys. ``source`` tells kinds of objects apart that make the same unit."""

    kind: UnitKind
    namespace: str
    name: str
    source: ObjectKind


UNITS: Mapping[ObjectKind, UnitKind] = {
    ObjectKind.NODE: UnitKind.NODE,
    ObjectKind.CILIUM_NODE: UnitKind.NODE,
    ObjectKind.CILIUM_IDENTITY: UnitKind.IDENTITY,
    ObjectKind.POD: UnitKind.ENDPOINT,
    ObjectKind.CILIUM_ENDPOINT: UnitKind.ENDPOINT,
    ObjectKind.CILIUM_ENDPOINT_SLICE: UnitKind.ENDPOINT,
    ObjectKind.SERVICE: UnitKind.SERVICE,
    ObjectKind.ENDPOINT_SLICE: UnitKind.SLICE,
}


class Picture:
    """All objects by name, with the ways from one to those that depend on it."""

    def __init__(self) -> None:
        """An empty cluster."""
        self.objects: dict[Ref, KubernetesObject] = {}
        self._slices: dict[tuple[str, str], dict[str, EndpointSlice]] = {}
        self._pods_on: dict[str, set[Ref]] = {}
        self._inside: dict[str, set[Ref]] = {}

    def put(self, object_: KubernetesObject) -> Iterator[Unit]:
        """The object is now this. Yields the units that this may change."""
        name = ref(object_)
        old = self.objects.get(name)
        if old == object_:
            return
        if old is not None:
            yield from self._units(old)
            self._unlink(name, old)
        self.objects[name] = object_
        self._link(name, object_)
        yield from self._units(object_)

    def drop(self, name: Ref) -> Iterator[Unit]:
        """The object is gone. Yields the units that this may change."""
        old = self.objects.pop(name, None)
        if old is not None:
            self._unlink(name, old)
            yield from self._units(old)

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

    def _units(self, object_: KubernetesObject) -> Iterator[Unit]:
        name = ref(object_)
        if name.kind in UNITS:
            yield _unit(name)
        match object_:
            case EndpointSlice() if service := service_of(object_):
                yield Unit(UnitKind.SERVICE, name.namespace, service, ObjectKind.SERVICE)
            case ServiceExport():
                yield Unit(UnitKind.SERVICE, name.namespace, name.name, ObjectKind.SERVICE)
            case Service():
                for slice_ in self._slices.get((name.namespace, name.name), ()):
                    yield _unit(Ref(ObjectKind.ENDPOINT_SLICE, name.namespace, slice_))
            case Namespace():
                yield from map(_unit, sorted(self._inside.get(name.name, ())))
            case Node():
                yield from map(_unit, sorted(self._pods_on.get(name.name, ())))
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


def namespace_of(object_: KubernetesObject) -> str:
    """The namespace whose settings decide about the object; empty for none."""
    match object_:
        case Namespace() | Node():
            return ""
        case _:
            inner = getattr(object_, "namespace", "") or object_.metadata.namespace
            labels = getattr(object_, "security_labels", {})
            return inner or labels.get("k8s:io.kubernetes.pod.namespace", "")


def _unit(name: Ref) -> Unit:
    return Unit(UNITS[name.kind], name.namespace, name.name, name.kind)
