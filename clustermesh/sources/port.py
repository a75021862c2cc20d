"""The port through which the local cluster's objects come, from Kubernetes or from files."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from clustermesh.sources.objects import KubernetesObject, ObjectKind, Ref


class Upsert(msgspec.Struct, frozen=True, gc=False):
    """The object is now this."""

    object: KubernetesObject


class Removal(msgspec.Struct, frozen=True, gc=False):
    """The object is gone."""

    ref: Ref


ObjectChange = Upsert | Removal


class SourceSink(Protocol):
    """Where a source delivers. Every call is synchronous and made in the event loop.

    A source hands over at most about a thousand changes at a time and yields to the loop between
    calls. It is level-based: after a reconnect it delivers the objects that exist and the removal
    of those that vanished meanwhile; repeating an object is harmless.
    """

    def apply(self, kind: ObjectKind, changes: Sequence[ObjectChange]) -> None:
        """New values and removals of one kind, in order."""
        ...

    def synced(self, kind: ObjectKind) -> None:
        """Everything of the kind that existed has been applied. May be told again."""
        ...

    def refused(self, what: str, reason: str | None) -> None:
        """An object (or file, or document) named ``what`` cannot be read, or (None) can again.

        What was known of it before stays.
        """
        ...

    def trouble(self, kind: ObjectKind | None, reason: str | None) -> None:
        """The kind (None: every kind) cannot be followed at present, or (no reason) can again.

        ``reason`` is a sentence for the operator. While there is trouble, nothing is removed, and
        what is published may be stale: the heartbeat must not claim otherwise.
        """
        ...


class Source(Protocol):
    """The local cluster's objects, for ever."""

    @property
    def kinds(self) -> frozenset[ObjectKind]:
        """What it delivers; each will be told to be synced."""
        ...

    async def run(self, sink: SourceSink) -> None:
        """Deliver until cancelled. Outages are told through ``trouble`` and waited out."""
        ...
