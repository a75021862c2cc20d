"""What a folder of files says: one version of each object, and what is wrong."""

from collections.abc import Iterable, Iterator

import msgspec

from clustermesh.sources.directory.parse import Parsed
from clustermesh.sources.objects import KubernetesObject, Ref
from clustermesh.sources.port import ObjectChange, Removal, Upsert


class _File(msgspec.Struct):
    """A file as it is now: what to use of it, and what to say about it."""

    objects: dict[Ref, tuple[KubernetesObject, str]]
    problems: dict[str, str]


class Folder:
    """Files in, changes of objects out. Of an object in several files the first by name counts."""

    def __init__(self) -> None:
        """No files."""
        self._files: dict[str, _File] = {}
        self._owners: dict[Ref, set[str]] = {}
        self._contested: set[Ref] = set()
        self._bad: set[str] = set()
        self._told: dict[Ref, KubernetesObject] = {}
        self._complaints: dict[str, str] = {}

    def put(self, name: str, parsed: Parsed, *, whole: bool = True) -> list[ObjectChange]:
        """A file reads like this now; not ``whole``: it is still being written.

        An object whose document went bad keeps its last good version. When it cannot be told
        which object a bad document was, all that the file used to have and does not repeat stay.
        """
        before = self._files.get(name) or _File({}, {})
        old = before.objects
        fresh = dict(parsed.objects)
        spoilt = {problem.ref for problem in parsed.problems}
        for ref, kept in old.items():
            if ref not in fresh and (not whole or None in spoilt or ref in spoilt):
                fresh[ref] = kept
        problems = {f"{name} {problem.where}": problem.reason for problem in parsed.problems}
        self._keep(name, _File(fresh, problems if whole else before.problems))
        for ref in old.keys() - fresh.keys():
            self._disown(ref, name)
        for ref in fresh:
            self._own(ref, name)
        return self._changes(old.keys() | fresh.keys())

    def unreadable(self, name: str, reason: str) -> None:
        """A file cannot be read at all; what it last said stays."""
        file = self._files.get(name) or _File({}, {})
        self._keep(name, _File(file.objects, {name: reason}))

    def drop(self, name: str) -> list[ObjectChange]:
        """A file is gone."""
        file = self._files.pop(name, None)
        self._bad.discard(name)
        if file is None:
            return []
        for ref in file.objects:
            self._disown(ref, name)
        return self._changes(file.objects.keys())

    def names(self) -> frozenset[str]:
        """The files that are known."""
        return frozenset(self._files)

    def takes_away(self, name: str, parsed: Parsed) -> bool:
        """Whether the file went bad, or objects vanished from it."""
        file = self._files.get(name)
        had = file.objects.keys() if file else set()
        return bool(parsed.problems) or bool(had - parsed.objects.keys())

    def complaints(self) -> Iterator[tuple[str, str | None]]:
        """What became wrong (or, None, right again) since the last time: place and reason."""
        now = {
            where: reason
            for name in sorted(self._bad)
            for where, reason in self._files[name].problems.items()
        } | self._duplicates()
        before, self._complaints = self._complaints, now
        for where in before.keys() - now.keys():
            yield where, None
        for where, reason in now.items():
            if before.get(where) != reason:
                yield where, reason

    def _duplicates(self) -> dict[str, str]:
        found = {}
        for ref in sorted(self._contested):
            first, *others = sorted(self._owners[ref])
            for other in others:
                place = self._files[other].objects[ref][1]
                found[f"{other} {place}"] = f"{ref} is also in {first}, which is used"
        return found

    def _keep(self, name: str, file: _File) -> None:
        self._files[name] = file
        if file.problems:
            self._bad.add(name)
        else:
            self._bad.discard(name)

    def _own(self, ref: Ref, name: str) -> None:
        owners = self._owners.setdefault(ref, set())
        owners.add(name)
        if len(owners) > 1:
            self._contested.add(ref)

    def _disown(self, ref: Ref, name: str) -> None:
        owners = self._owners[ref]
        owners.discard(name)
        if len(owners) < 2:
            self._contested.discard(ref)
        if not owners:
            del self._owners[ref]

    def _changes(self, refs: Iterable[Ref]) -> list[ObjectChange]:
        changes: list[ObjectChange] = []
        for ref in sorted(refs):
            owners = self._owners.get(ref)
            if not owners:
                if self._told.pop(ref, None) is not None:
                    changes.append(Removal(ref))
                continue
            object_ = self._files[min(owners)].objects[ref][0]
            if self._told.get(ref) != object_:
                self._told[ref] = object_
                changes.append(Upsert(object_))
        return changes
