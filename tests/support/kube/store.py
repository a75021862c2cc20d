"""Objects with revisions and a history: what an API server knows, without any HTTP."""

import asyncio
import bisect
import copy
import itertools
import uuid
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.support.kube import refusals
from tests.support.kube.catalog import Kind
from tests.support.kube.selectors import fields_match, labels_match

Manifest = dict[str, Any]
Name = tuple[str, str]
PAGE = "token-"


DRY_RUN: ContextVar[bool] = ContextVar("dry_run", default=False)
"""Whether the request asks for ``dryRun=All``: everything but the write itself."""


@dataclass(frozen=True)
class Entry:
    """One step of history: ``after`` None is a deletion, ``before`` None a creation."""

    revision: int
    title: str
    before: Manifest | None
    after: Manifest | None


@dataclass(frozen=True)
class View:
    """What a list or watch asks for."""

    kind: Kind
    namespace: str = ""
    labels: str = ""
    fields: str = ""

    def has(self, object_: Manifest | None) -> bool:
        if object_ is None:
            return False
        meta = object_["metadata"]
        return (
            (not self.namespace or meta.get("namespace") == self.namespace)
            and labels_match(self.labels, meta.get("labels"))
            and fields_match(self.fields, object_)
        )

    def event(self, entry: Entry) -> tuple[str, Manifest] | None:
        """What a watcher of this view is told of a step; leaving the selector is a deletion."""
        if entry.title != self.kind.title:
            return None
        was, is_ = self.has(entry.before), self.has(entry.after)
        if is_:
            return ("MODIFIED" if was else "ADDED"), entry.after or {}
        if was:
            gone = copy.deepcopy(entry.before or {})
            gone["metadata"]["resourceVersion"] = str(entry.revision)
            return "DELETED", gone
        return None


@dataclass
class Store:
    """Every write is a revision; values are never changed in place."""

    revision: int = 1000
    oldest: int = 1000
    """A watch from before this revision is told 410."""
    history: list[Entry] = field(default_factory=list)
    objects: dict[str, dict[Name, Manifest]] = field(default_factory=dict)
    snapshots: dict[str, tuple[int, list[Manifest]]] = field(default_factory=dict)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _tokens: Iterator[int] = field(default_factory=itertools.count)

    def all(self, view: View) -> list[Manifest]:
        """Objects in the order of their names."""
        held = self.objects.get(view.kind.title, {})
        return [held[name] for name in sorted(held) if view.has(held[name])]

    def page(self, view: View, limit: int, token: str) -> tuple[list[Manifest], int, str, int]:
        """Items, revision, token of the rest, how many remain. Pages are of one snapshot."""
        if token:
            if not token.startswith(PAGE):
                raise refusals.bad(f"invalid continue token: continue key is not valid: {token}")
            if token not in self.snapshots:
                raise refusals.expired_page()
            revision, rest = self.snapshots[token]
        else:
            revision, rest = self.revision, self.all(view)
        if not limit or len(rest) <= limit:
            return rest, revision, "", 0
        token = f"{PAGE}{next(self._tokens)}"
        self.snapshots[token] = (revision, rest[limit:])
        return rest[:limit], revision, token, len(rest) - limit

    def since(self, view: View, revision: int) -> list[tuple[str, Manifest]]:
        """Later steps that a view sees, as type and object."""
        first = bisect.bisect_right(self.history, revision, key=lambda entry: entry.revision)
        told = (view.event(entry) for entry in self.history[first:])
        return [event for event in told if event is not None]

    def get(self, kind: Kind, name: Name) -> Manifest:
        try:
            return self.objects[kind.title][name]
        except KeyError:
            raise refusals.not_found(kind, name[1]) from None

    async def create(self, kind: Kind, name: Name, manifest: Manifest) -> Manifest:
        if name in self.objects.get(kind.title, {}):
            raise refusals.exists(kind, name[1])
        made = copy.deepcopy(manifest)
        meta = made.setdefault("metadata", {})
        meta |= {
            "name": name[1],
            "uid": str(uuid.uuid4()),
            "creationTimestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        if kind.namespaced:
            meta["namespace"] = name[0]
        if kind.counted:
            meta["generation"] = 1
        return await self._write(kind, name, None, made)

    async def replace(
        self, kind: Kind, name: Name, manifest: Manifest, *, part: str = ""
    ) -> Manifest:
        """Put an object, or only its ``part`` (``status``); a stale revision is a conflict."""
        before = self.get(kind, name)
        asked = manifest.get("metadata", {}).get("resourceVersion", "")
        if asked and asked != before["metadata"]["resourceVersion"]:
            raise refusals.modified(kind, name[1])
        if not asked and kind.conditional:
            raise refusals.unconditional(kind, name[1])
        made = copy.deepcopy(before if part else manifest)
        if part:
            made[part] = copy.deepcopy(manifest.get(part, {}))
        elif kind.has_status and "status" in before:
            made["status"] = before["status"]
        kept = ("name", "namespace", "uid", "creationTimestamp", "generation")
        made["metadata"] |= {k: v for k, v in before["metadata"].items() if k in kept}
        if kind.counted and _content(made) != _content(before):
            made["metadata"]["generation"] = before["metadata"].get("generation", 0) + 1
        return await self._write(kind, name, before, made)

    async def delete(self, kind: Kind, name: Name, preconditions: dict[str, str]) -> Manifest:
        before = self.get(kind, name)
        for what, wanted in preconditions.items():
            if (found := before["metadata"].get(what, "")) != wanted:
                raise refusals.another(kind, name[1], what, wanted, found)
        await self._write(kind, name, before, None)
        return before

    async def _write(
        self, kind: Kind, name: Name, before: Manifest | None, after: Manifest | None
    ) -> Manifest:
        async with self.changed:
            for field in ("labels", "annotations"):
                if after is not None and not after["metadata"].get(field, True):
                    del after["metadata"][field]
            same = before and after and _bare(before) == _bare(after)
            if same:
                return before
            if DRY_RUN.get():
                return after or {}
            self.revision += 1
            held = self.objects.setdefault(kind.title, {})
            if after is None:
                held.pop(name)
            else:
                after["metadata"]["resourceVersion"] = str(self.revision)
                held[name] = after
            self.history.append(Entry(self.revision, kind.title, before, after))
            self.changed.notify_all()
        return after or {}

    def forget_history(self) -> None:
        """What compaction and a restart do: older revisions are gone, page tokens too."""
        self.revision += 1
        self.oldest = self.revision
        self.history.clear()
        self.snapshots.clear()


def _content(object_: Manifest) -> Manifest:
    """What a generation counts the changes of."""
    return {key: value for key, value in object_.items() if key not in {"metadata", "status"}}


def _bare(object_: Manifest) -> Manifest:
    meta = {k: v for k, v in object_["metadata"].items() if k != "resourceVersion"}
    return {**object_, "metadata": meta}


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    base = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            base.pop(key, None)
        else:
            base[key] = merge(base.get(key), value)
    return base
