"""From Kubernetes objects to the keys that should be in etcd, one change at a time."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from clustermesh.export.build import Builder, Numbers
from clustermesh.export.claims import Claims
from clustermesh.export.picture import Picture
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
        self.picture = Picture()
        """The objects as they are now."""
        self._builder = Builder(settings, self.picture, numbers)
        self._claims: Claims[Ref] = Claims()
        self._notes: dict[Ref, tuple[str, ...]] = {}
        self._undecided: dict[str, set[Ref]] = {}

    def apply(self, kind: ObjectKind, changes: Sequence[ObjectChange]) -> KeyChanges:
        """What changes in etcd. Kinds that are not exported (see settings) are passed over."""
        if kind not in self._kinds:
            return ()
        touched: dict[Ref, None] = {}
        for change in changes:
            names = (
                self.picture.put(change.object)
                if isinstance(change, Upsert)
                else self.picture.drop(change.ref)
            )
            touched.update(dict.fromkeys(names))
        return self._rebuild(touched)

    def decided(self, label_texts: Iterable[str]) -> KeyChanges:
        """What changes now that labels that were waiting have their numbers."""
        touched: dict[Ref, None] = {}
        for text in label_texts:
            touched.update(dict.fromkeys(sorted(self._undecided.pop(text, ()))))
        return self._rebuild(touched)

    def wanted(self) -> dict[str, bytes]:
        """Every key with its value."""
        return dict(self._claims.items())

    def known(self) -> Mapping[Ref, KubernetesObject]:
        """The objects as they are now."""
        return self.picture.objects

    def has_identity(self, number: int) -> bool:
        """Whether anything refers to the identity: its number must not be given away."""
        return self._builder.identity_key(str(number)) in self._claims

    def refusals(self) -> Iterator[tuple[str, str]]:
        """What of which object is not published, and why; contested addresses too."""
        for name, notes in self._notes.items():
            for note in notes:
                yield str(name), note
        shared = self._builder.identity_key("")
        for key, owner, queue in self._claims.waiting():
            if not key.startswith(shared):
                for name in queue:
                    yield str(name), f"{key} belongs to {owner}"

    def _rebuild(self, touched: Iterable[Ref]) -> KeyChanges:
        for name in touched:
            built = self._builder.build(name)
            self._claims.claim(name, built.entries)
            if built.notes:
                self._notes[name] = tuple(built.notes)
            else:
                self._notes.pop(name, None)
            if built.undecided:
                self._undecided.setdefault(built.undecided, set()).add(name)
        return self._claims.changes()
