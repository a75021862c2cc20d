"""Everything known about exported names, and which of them something has changed."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from clustermesh.export import annotations
from clustermesh.export.mcs import derived_name
from clustermesh.mcs import names
from clustermesh.mcs.derive import Facts, Wanted, wanted
from clustermesh.mcs.names import Name
from clustermesh.model import ServiceExport
from clustermesh.sources.objects import (
    EndpointSlice,
    KubernetesObject,
    Meta,
    Namespace,
    ObjectKind,
    Ref,
    Service,
    ServiceImport,
    ref,
)
from clustermesh.sources.objects import ServiceExport as OwnExport
from clustermesh.sources.port import ObjectChange, Upsert


class Cluster(Protocol):
    """The objects of this cluster (``export.picture.Picture``)."""

    @property
    def objects(self) -> Mapping[Ref, KubernetesObject]: ...

    def namespace(self, name: str) -> Namespace | None: ...

    def service(self, namespace: str, name: str) -> Service | None: ...

    def service_export(self, namespace: str, name: str) -> OwnExport | None: ...

    def slices(self, namespace: str, service: str) -> list[EndpointSlice]: ...


class Imports:
    """What is exported under which name, here and elsewhere; ``touched`` names want another look.

    ``declared_only``: a namespace that is not among the objects does not exist; otherwise it is
    one without annotations, as in a directory of manifests.
    """

    def __init__(
        self, cluster: str, here: Cluster, *, global_namespaces: bool, declared_only: bool
    ) -> None:
        """``global_namespaces``: those without the annotation take part in the mesh too."""
        self._cluster = cluster
        self._here = here
        self._global_namespaces = global_namespaces
        self._declared_only = declared_only
        self._elsewhere: dict[Name, dict[str, ServiceExport]] = {}
        self._known: dict[str, set[Name]] = {}
        """Names that are exported or imported, by namespace."""
        self._derived: dict[Name, str] = {}
        """What a derived Service stands for."""
        self.imports: dict[Name, ServiceImport] = {}
        """The ServiceImports that there are, whole."""
        self.touched: dict[Name, None] = {}

    # --- news ----------------------------------------------------------------------------------

    def heard(self, changes: Sequence[ObjectChange]) -> None:
        """Changes of this cluster, told before the objects themselves change."""
        for change in changes:
            name = ref(change.object) if isinstance(change, Upsert) else change.ref
            for object_ in (self._here.objects.get(name), _new(change)):
                if object_ is not None:
                    self._touch_all(self._concerned(object_))
            if name.kind is ObjectKind.SERVICE_IMPORT:
                self._import(name, _new(change))

    def told(self, cluster: str, name: Name, export: ServiceExport | None) -> None:
        """What another cluster exports under a name now; None: nothing any more."""
        known = self._elsewhere.get(name, {})
        if known.get(cluster) == export:
            return
        if export is not None:
            self._elsewhere.setdefault(name, {})[cluster] = export
            self._learn(name)
        else:
            del known[cluster]
            if not known:
                del self._elsewhere[name]
        self.touched[name] = None

    def exported_by(self, cluster: str) -> list[Name]:
        """The names that another cluster exports."""
        return [name for name, exports in self._elsewhere.items() if cluster in exports]

    def touch_everything(self) -> None:
        """Have another look at every name."""
        self._touch_all(self)

    def take(self, limit: int) -> list[Name]:
        """Some of the touched names, oldest first; they are touched no more."""
        taken = [name for _, name in zip(range(limit), self.touched, strict=False)]
        for name in taken:
            del self.touched[name]
        return taken

    def forget(self, name: Name) -> None:
        """Nothing of this name should be, and nothing is: unless somebody exports it, let it go."""
        if name in self._elsewhere or self._here.service_export(*name) is not None:
            return
        known = self._known.get(name[0], set())
        known.discard(name)
        if not known:
            self._known.pop(name[0], None)
        self._derived.pop((name[0], derived_name(*name)), None)

    # --- questions -----------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Name]:
        """Every name, sorted."""
        yield from sorted(name for known in self._known.values() for name in known)

    def wanted(self, name: Name) -> Wanted:
        """What should exist under the name."""
        namespace, service = name
        facts = Facts(
            cluster=self._cluster,
            namespace=namespace,
            name=service,
            exports=self._elsewhere.get(name, {}),
            meshed=self._meshed(namespace),
            own=self._here.service_export(namespace, service),
            service=self._here.service(namespace, service),
            slices=self._here.slices(namespace, service),
        )
        return wanted(facts)

    def derived(self, name: Name) -> Service | None:
        """The Service that has the name which is derived from this one, whoever made it."""
        return self._here.service(name[0], derived_name(*name))

    def copies(self, name: Name) -> list[EndpointSlice]:
        """The copied slices of the derived Service."""
        found = self._here.slices(name[0], derived_name(*name))
        return [each for each in found if is_copy(each)]

    def own_export(self, name: Name) -> OwnExport | None:
        """The ServiceExport here."""
        return self._here.service_export(*name)

    def _meshed(self, name: str) -> bool:
        namespace = self._here.namespace(name)
        if namespace is None and self._declared_only:
            return False
        return annotations.exports(namespace, default=self._global_namespaces)

    # --- who is concerned ----------------------------------------------------------------------

    def _concerned(self, object_: KubernetesObject) -> Iterator[Name]:
        meta = object_.metadata
        match object_:
            case OwnExport() | ServiceImport():
                self._learn((meta.namespace, meta.name))
                yield meta.namespace, meta.name
            case Service():
                yield from self._of_service(meta, meta.name)
            case EndpointSlice():
                yield from self._of_service(meta, (meta.labels or {}).get(names.OF_SERVICE, ""))
            case Namespace():
                yield from sorted(self._known.get(meta.name, ()))
            case _:
                return

    def _of_service(self, meta: Meta, service: str) -> Iterator[Name]:
        """The name whose Service this is, and the one from which its name is derived."""
        name = (meta.namespace, service)
        if name in self._known.get(meta.namespace, ()):
            yield name
        if name in self._derived:
            yield meta.namespace, self._derived[name]
        elif (of := (meta.labels or {}).get(names.SERVICE)) and is_derived(meta, service):
            self._learn((meta.namespace, of))  # left over from an earlier life
            yield meta.namespace, of

    def _learn(self, name: Name) -> None:
        self._known.setdefault(name[0], set()).add(name)
        self._derived[name[0], derived_name(*name)] = name[1]

    def _touch_all(self, found: Iterable[Name]) -> None:
        for name in found:
            self.touched[name] = None

    def _import(self, name: Ref, new: KubernetesObject | None) -> None:
        key = (name.namespace, name.name)
        self.touched[key] = None
        if isinstance(new, ServiceImport):
            self.imports[key] = new
        else:
            self.imports.pop(key, None)


def held(there: ServiceImport | None, unread: Collection[str]) -> bool:
    """Whether a cluster that exports the service, by our last account, has not spoken yet."""
    return there is not None and any(each.cluster in unread for each in there.status.clusters)


def is_derived(meta: Meta, service: str) -> bool:
    """Whether ``service`` is the name derived from the one that the labels tell."""
    of = (meta.labels or {}).get(names.SERVICE, "")
    return bool(of) and service == derived_name(meta.namespace, of)


def is_copy(slice_: EndpointSlice) -> bool:
    """Whether we (or another operator of the mesh) made it as a copy."""
    return (slice_.metadata.labels or {}).get(names.MANAGED_BY) == names.COPIER


def collision(there: Service | None) -> str:
    """Why the derived name cannot be used: a sentence, empty when it can."""
    if there is None or is_derived(there.metadata, there.metadata.name):
        return ""
    where = f"{there.metadata.namespace}/{there.metadata.name}"
    return (
        f"the name derived from it is that of Service {where}, which is not ours to change"
        f" (it has no label {names.SERVICE} that says so); rename that Service"
    )


def _new(change: ObjectChange) -> KubernetesObject | None:
    return change.object if isinstance(change, Upsert) else None
