"""From Kubernetes objects to the keys that should be in etcd, one change at a time."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from clustermesh.export.build import Builder, Numbers
from clustermesh.export.claims import Claims
from clustermesh.export.picture import Picture, Unit
from clustermesh.export.settings import ExportSettings
from clustermesh.sources.objects import KubernetesObject, ObjectKind, Ref
from clustermesh.sources.port import ObjectChange, Upsert

KeyChanges = Sequence[tuple[str, bytes | None]]
"""Keys, each once, with the new value or None for a key to remove; new values come first."""


class Exporter:
    """The keys that a cluster's objects stand for.

    They depend on the present objects alone, but for one thing: of several objects that claim one
    address, the first stays its owner and the others take over in the order in which they came
    (contract kvstore 2.3). A namespace that is not known yet follows the setting, so hand over
    namespaces first.
    """

    def __init__(self, settings: ExportSettings, numbers: Numbers | None = None) -> None:
        """``numbers`` is needed for flavour core."""
        self._kinds = settings.kinds
        self._picture = Picture()
        self._builder = Builder(settings, self._picture, numbers)
        self._claims: Claims[Unit] = Claims()
        self._notes: dict[Unit, tuple[str, ...]] = {}
        self._undecided: dict[str, set[Unit]] = {}

    def apply(self, kind: ObjectKind, changes: Sequence[ObjectChange]) -> KeyChanges:
        """What changes in etcd. Kinds that are not exported (see settings) are passed over."""
        if kind not in self._kinds:
            return ()
        touched: dict[Unit, None] = {}
        for change in changes:
            units = (
                self._picture.put(change.object)
                if isinstance(change, Upsert)
                else self._picture.drop(change.ref)
            )
            touched.update(dict.fromkeys(units))
        return self._rebuild(touched)

    def decided(self, label_texts: Iterable[str]) -> KeyChanges:
        """What changes now that labels that were waiting have their numbers."""
        touched: dict[Unit, None] = {}
        for text in label_texts:
            touched.update(dict.fromkeys(sorted(self._undecided.pop(text, ()))))
        return self._rebuild(touched)

    def wanted(self) -> dict[str, bytes]:
        """Every key with its value."""
        return dict(self._claims.items())

    def known(self) -> Mapping[Ref, KubernetesObject]:
        """The objects as they are now."""
        return self._picture.objects

    def has_identity(self, number: int) -> bool:
        """Whether anything refers to the identity: its number must not be given away."""
        return self._builder.identity_key(str(number)) in self._claims

    def refusals(self) -> Iterator[tuple[str, str]]:
        """What of which object is not published, and why; contested addresses too."""
        for unit, notes in self._notes.items():
            for note in notes:
                yield _called(unit), note
        shared = self._builder.identity_key("")
        for key, owner, queue in self._claims.waiting():
            if not key.startswith(shared):
                for unit in queue:
                    yield _called(unit), f"{key} belongs to {_called(owner)}"

    def _rebuild(self, touched: Iterable[Unit]) -> KeyChanges:
        for unit in touched:
            built = self._builder.build(unit)
            self._claims.claim(unit, built.entries)
            if built.notes:
                self._notes[unit] = tuple(built.notes)
            else:
                self._notes.pop(unit, None)
            if built.undecided:
                self._undecided.setdefault(built.undecided, set()).add(unit)
        return self._claims.changes()


def _called(unit: Unit) -> str:
    return str(Ref(unit.source, unit.namespace, unit.name))
