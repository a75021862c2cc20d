"""What to ask of an API server so that what is there becomes what should be."""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from clustermesh.mcs import manifests
from clustermesh.mcs.derive import Wanted
from clustermesh.mcs.names import DERIVED
from clustermesh.sources.objects import (
    Condition,
    EndpointSlice,
    Service,
    ServiceExport,
    ServiceImport,
)

SERVICES: Final = "/api/v1/namespaces/{}/services"
SLICES: Final = "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices"
MULTICLUSTER: Final = "multicluster.x-k8s.io"


class Step(msgspec.Struct, frozen=True):
    """One request; ``body`` None for DELETE. PATCH means a merge patch."""

    method: str
    path: str
    body: manifests.Body | None = None


class There(msgspec.Struct, frozen=True, kw_only=True):
    """What there is under one name; ``derived`` only when it is ours."""

    service_import: ServiceImport | None = None
    derived: Service | None = None
    slices: Sequence[EndpointSlice] = ()
    export: ServiceExport | None = None


class Versions(msgspec.Struct, frozen=True):
    """Served versions of the API's two kinds."""

    imports: str
    exports: str


def complete(body: manifests.Body) -> manifests.Body:
    """A new object has no fields that are null: these only clear something in a patch."""
    return {
        key: complete(value) if isinstance(value, dict) else value
        for key, value in body.items()
        if value is not None
    }


def plan(wanted: Wanted, there: There, versions: Versions, *, now: str) -> Iterator[Step]:
    """The next steps, in order; ``now`` is RFC 3339.

    What depends on an object that does not exist yet waits until it does: the plan is made again
    whenever anything is heard.
    """
    yield from _conditions(wanted, there, versions, now)
    if wanted.service_import is None or wanted.derived is None:
        yield from _removals(there, versions)
        return
    if there.service_import is None:
        group = f"{MULTICLUSTER}/{versions.imports}"
        body = manifests.service_import(wanted.service_import, (), group=group)
        yield Step("POST", _imports(versions, wanted.service_import), complete(body))
        return
    yield from _import(wanted.service_import, there.service_import, there.derived, versions)
    yield from _derived(wanted.derived, there, versions)
    if there.derived is not None:
        yield from _slices(wanted.slices, there.slices, there.derived)


def _removals(there: There, versions: Versions) -> Iterator[Step]:
    """Only what is ours: an import that names its derived service."""
    for slice_ in there.slices:
        yield Step("DELETE", _slice_path(slice_))
    if there.derived is not None:
        yield Step("DELETE", _service_path(there.derived))
    present = there.service_import
    if present is not None and DERIVED in (present.metadata.annotations or {}):
        yield Step("DELETE", f"{_imports(versions, present)}/{present.metadata.name}")


def _import(
    wanted: ServiceImport, present: ServiceImport, derived: Service | None, versions: Versions
) -> Iterator[Step]:
    path = f"{_imports(versions, wanted)}/{wanted.metadata.name}"
    ips = _addresses(derived)
    if not manifests.same_import(wanted, ips, present):
        group = f"{MULTICLUSTER}/{versions.imports}"
        body = manifests.service_import(wanted, ips, group=group)
        yield Step("PATCH", path, manifests.merge(body, present.metadata))
    if wanted.status.clusters != present.status.clusters:
        clusters = [{"cluster": each.cluster} for each in wanted.status.clusters]
        yield Step("PATCH", f"{path}/status", {"status": {"clusters": clusters}})


def _addresses(derived: Service | None) -> tuple[str, ...]:
    if derived is None or _is_headless(derived):
        return ()
    return derived.spec.cluster_ips or tuple(filter(None, (derived.spec.cluster_ip,)))


def _derived(wanted: Service, there: There, versions: Versions) -> Iterator[Step]:
    owner, present = there.service_import, there.derived
    if owner is None:
        return
    body = manifests.service(wanted, owner, group=f"{MULTICLUSTER}/{versions.imports}")
    if present is None:
        yield Step("POST", SERVICES.format(wanted.metadata.namespace), complete(body))
    elif _is_headless(wanted) != _is_headless(present):  # an address cannot be taken or given
        yield Step("DELETE", _service_path(present))
    elif not manifests.same_service(wanted, present):
        for fixed in ("clusterIP", "ipFamilies", "ipFamilyPolicy"):
            body["spec"].pop(fixed, None)
        yield Step("PATCH", _service_path(present), manifests.merge(body, present.metadata))


def _slices(
    wanted: Sequence[EndpointSlice], there: Sequence[EndpointSlice], owner: Service
) -> Iterator[Step]:
    present = {each.metadata.name: each for each in there}
    for slice_ in wanted:
        body = manifests.endpoint_slice(slice_, owner)
        before = present.pop(slice_.metadata.name, None)
        if before is None:
            yield Step("POST", SLICES.format(slice_.metadata.namespace), body)
        elif before.address_type != slice_.address_type:  # cannot be changed
            yield Step("DELETE", _slice_path(before))
        elif not manifests.same_slice(slice_, before):
            patch = manifests.merge(body, before.metadata)
            patch.pop("addressType")
            patch["metadata"].pop("annotations")  # others note things there
            yield Step("PATCH", _slice_path(slice_), patch)
    for slice_ in present.values():
        yield Step("DELETE", _slice_path(slice_))


def _conditions(wanted: Wanted, there: There, versions: Versions, now: str) -> Iterator[Step]:
    """Those that are not ours stay; the time is that of the last change of ``status``."""
    if there.export is None or not wanted.conditions:
        return
    before = {each.type: each for each in there.export.status.conditions}
    after = {each.type: each for each in wanted.conditions}
    foreign = before.keys() - OURS
    if all(_says_the_same(before.get(type_), after.get(type_)) for type_ in OURS):
        return
    found: list[manifests.Body] = []
    for type_ in (*sorted(foreign), *after):
        each = before[type_] if type_ in foreign else after[type_]
        old = before.get(type_)
        unchanged = old is not None and old.status == each.status
        since = old.last_transition_time if unchanged and old is not None else None
        found.append(manifests.condition(each, since or now))
    meta = there.export.metadata
    base = f"/apis/{MULTICLUSTER}/{versions.exports}/namespaces/{meta.namespace}/serviceexports"
    yield Step("PATCH", f"{base}/{meta.name}/status", {"status": {"conditions": found}})


OURS: Final = frozenset({"Valid", "Ready", "Conflict"})


def _says_the_same(before: Condition | None, after: Condition | None) -> bool:
    if before is None or after is None:
        return before is after
    return (before.status, before.reason, before.message) == (
        after.status,
        after.reason,
        after.message,
    )


def _imports(versions: Versions, service_import: ServiceImport) -> str:
    namespace = service_import.metadata.namespace
    return f"/apis/{MULTICLUSTER}/{versions.imports}/namespaces/{namespace}/serviceimports"


def _service_path(service: Service) -> str:
    return f"{SERVICES.format(service.metadata.namespace)}/{service.metadata.name}"


def _slice_path(slice_: EndpointSlice) -> str:
    return f"{SLICES.format(slice_.metadata.namespace)}/{slice_.metadata.name}"


def _is_headless(service: Service) -> bool:
    return service.spec.cluster_ip.lower() == "none"
