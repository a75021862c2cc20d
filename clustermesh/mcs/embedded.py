"""Imports without an API server: derived services are published as if they were in the files."""

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from clustermesh.export.mcs import derived_name
from clustermesh.mcs.derive import Wanted
from clustermesh.mcs.imports import Imports, collision
from clustermesh.mcs.names import Name
from clustermesh.mcs.pool import Pool
from clustermesh.model import ServiceExport
from clustermesh.sources.objects import (
    Condition,
    EndpointSlice,
    KubernetesObject,
    ObjectKind,
    Service,
    ref,
)
from clustermesh.sources.port import ObjectChange, Removal, SourceSink, Upsert
from clustermesh.status import ImportStatus

AT_ONCE: Final = 1000
ANY_FAMILY: Final = ("IPv4", "IPv6")
"""Of exports by releases before 1.18, which do not say."""


class Publishes(SourceSink, Protocol):
    """Who publishes objects."""


class Embedded:
    """A sink before the sink, which adds what other clusters export.

    It is level-based: each name is worked out from present facts, and what differs from what was
    made before is told as a source would.
    """

    def __init__(self, imports: Imports, inner: Publishes, pool: Pool) -> None:
        self._imports = imports
        self._inner = inner
        self._pool = pool
        self._made: dict[Name, dict[tuple[ObjectKind, str], KubernetesObject]] = {}
        self._states: dict[Name, ImportStatus] = {}

    # --- the source ----------------------------------------------------------------------------

    def apply(self, kind: ObjectKind, changes: Sequence[ObjectChange]) -> None:
        """As ``SourceSink``."""
        self._imports.heard(changes)
        self._inner.apply(kind, changes)
        self.settle()

    def synced(self, kind: ObjectKind) -> None:
        """As ``SourceSink``."""
        self._inner.synced(kind)

    def refused(self, what: str, reason: str | None) -> None:
        """As ``SourceSink``."""
        self._inner.refused(what, reason)

    def trouble(self, kind: ObjectKind | None, reason: str | None) -> None:
        """As ``SourceSink``."""
        self._inner.trouble(kind, reason)

    # --- other clusters ------------------------------------------------------------------------

    def told(self, cluster: str, name: Name, export: ServiceExport | None) -> None:
        """As ``remotes.Listener``."""
        self._imports.told(cluster, name, export)
        self.settle()

    def exported_by(self, cluster: str) -> list[Name]:
        """As ``remotes.Listener``."""
        return self._imports.exported_by(cluster)

    def complete(self, cluster: str) -> None:
        """Nothing waits for it."""

    # --- what follows --------------------------------------------------------------------------

    def settle(self) -> None:
        """Make true what should be, for every name that was touched."""
        while names := self._imports.take(AT_ONCE):
            changes: dict[ObjectKind, list[ObjectChange]] = {}
            for name in names:
                for change in self._turn(name):
                    changes.setdefault(_kind(change), []).append(change)
            for kind, of_kind in changes.items():
                self._inner.apply(kind, of_kind)

    async def run(self) -> None:
        """Everything happens in the calls above."""
        await asyncio.Event().wait()

    def statuses(self) -> tuple[ImportStatus, ...]:
        """Every import, by name."""
        return tuple(self._states[name] for name in sorted(self._states))

    def _turn(self, name: Name) -> list[ObjectChange]:
        """The changes that make one name right."""
        wanted = self._imports.wanted(name)
        there = self._imports.derived(name)
        before = self._made.pop(name, {})
        theirs = there is not None and not _is(there, before)
        clash = collision(there) if theirs and wanted.derived is not None else ""
        told = f"ServiceImport {name[0]}/{name[1]}"
        self._inner.refused(told, clash or self._without_address(name, wanted))
        objects = {} if clash else self._objects(name, wanted)
        if objects:
            self._made[name] = objects
        self._remember(name, wanted, objects, clash)
        if there is None or theirs:  # a file says, or said, otherwise
            before.pop((ObjectKind.SERVICE, derived_name(*name)), None)
        changes: list[ObjectChange] = [
            Upsert(each) for key, each in objects.items() if before.get(key) != each
        ]
        gone = (each for key, each in before.items() if key not in objects)
        return [*changes, *(Removal(ref(each)) for each in gone)]

    def _objects(
        self, name: Name, wanted: Wanted
    ) -> dict[tuple[ObjectKind, str], KubernetesObject]:
        if wanted.derived is None:
            self._pool.release(name)
            return {}
        derived = self._addressed(name, wanted.derived)
        made: list[Service | EndpointSlice] = [derived, *wanted.slices]
        return {(ref(each).kind, each.metadata.name): each for each in made}

    def _addressed(self, name: Name, derived: Service) -> Service:
        spec = derived.spec
        if spec.cluster_ip:  # headless
            self._pool.release(name)
            return derived
        ips = self._pool.take(name, spec.ip_families or ANY_FAMILY)
        spec = msgspec.structs.replace(spec, cluster_ip=ips[0] if ips else "", cluster_ips=ips)
        return msgspec.structs.replace(derived, spec=spec)

    def _without_address(self, name: Name, wanted: Wanted) -> str | None:
        if wanted.derived is None or wanted.derived.spec.cluster_ip:
            return None
        families = wanted.derived.spec.ip_families
        if self._pool.take(name, families or ANY_FAMILY):
            return None
        return (
            f"no address of {' or '.join(families) or 'any family'} is left for it: give a larger"
            " --clusterset-cidrs, or one of that family"
        )

    def _remember(
        self,
        name: Name,
        wanted: Wanted,
        objects: dict[tuple[ObjectKind, str], KubernetesObject],
        clash: str,
    ) -> None:
        if wanted.service_import is None and not wanted.conditions:
            self._states.pop(name, None)
            self._imports.forget(name)
            return
        addresses = (
            each.spec.cluster_ips for each in objects.values() if isinstance(each, Service)
        )
        self._states[name] = status(name, wanted, next(addresses, ()), clash)


def status(
    name: Name, wanted: Wanted, addresses: tuple[str, ...], problem: str = ""
) -> ImportStatus:
    """What an operator is shown of one name."""
    there = wanted.service_import
    derived = wanted.derived
    return ImportStatus(
        namespace=name[0],
        name=name[1],
        type=there.spec.type if there else "",
        clusters=tuple(each.cluster for each in there.status.clusters) if there else (),
        derived=derived.metadata.name if derived and not problem else "",
        addresses=addresses,
        conflict=wanted.conflict.message,
        export=_export(wanted.conditions),
        problem=problem,
    )


def _export(conditions: tuple[Condition, ...]) -> str:
    """How the own export stands: empty without one, else the reason of ``Valid``."""
    return next((each.reason for each in conditions if each.type == "Valid"), "")


def _is(there: Service, made: dict[tuple[ObjectKind, str], KubernetesObject]) -> bool:
    """Whether the Service is the one that was made."""
    ours = made.get((ObjectKind.SERVICE, there.metadata.name))
    return isinstance(ours, Service) and ours.spec == there.spec and not collision(there)


def _kind(change: ObjectChange) -> ObjectKind:
    return ref(change.object).kind if isinstance(change, Upsert) else change.ref.kind
