"""The store without HTTP, for tests on virtual time: reads as the source asks for them."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping

from clustermesh.sources.kubernetes.failures import Gone, Missing, Unreachable
from tests.support.kube.catalog import Catalog, Kind
from tests.support.kube.store import Manifest, Store, View

Name = tuple[str, str]


class DirectApi:
    """Implements what a Follower reads; ``up`` may be set to False at any time."""

    def __init__(self) -> None:
        self.store = Store()
        self.catalog = Catalog()
        self.up = True
        self.asked: list[tuple[float, str]] = []

    async def put(self, manifest: Manifest) -> None:
        """Create or replace."""
        kind, name = self.catalog.of(manifest), _name(manifest)
        present = self.store.objects.get(kind.title, {}).get(name)
        if present is not None:
            version = {"resourceVersion": present["metadata"]["resourceVersion"]}
            manifest = {**manifest, "metadata": {**manifest["metadata"], **version}}
            await self.store.replace(kind, name, manifest)
        else:
            await self.store.create(kind, name, manifest)

    async def drop(self, manifest: Manifest) -> None:
        """Delete."""
        await self.store.delete(self.catalog.of(manifest), _name(manifest), {})

    async def fall(self) -> None:
        """Go down, with every watch."""
        self.up = False
        async with self.store.changed:
            self.store.changed.notify_all()

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> bytes:
        self._ask(path)
        query = query or {}
        group = path.removeprefix("/apis/").split("/")
        if path.startswith("/apis/") and len(group) == 2:
            return self._resources(*group)
        kind = self._kind(path)
        items, revision, token, _ = self.store.page(
            _view(kind, query), int(query.get("limit", "0")), query.get("continue", "")
        )
        meta = {"resourceVersion": str(revision), "continue": token}
        return json.dumps({"metadata": meta, "items": items}).encode()

    @contextlib.asynccontextmanager
    async def stream(
        self, path: str, query: Mapping[str, str], *, lifetime: float
    ) -> AsyncIterator[AsyncIterator[list[bytes]]]:
        self._ask(path)
        yield self._lines(_view(self._kind(path), query), int(query["resourceVersion"]), lifetime)

    async def _lines(
        self, view: View, revision: int, lifetime: float
    ) -> AsyncIterator[list[bytes]]:
        end = asyncio.get_running_loop().time() + lifetime
        if revision < self.store.oldest:
            raise Gone("too old")
        while True:
            told, revision = self.store.since(view, revision), self.store.revision
            if told:
                yield [_line(*each) for each in told]
            try:
                async with asyncio.timeout_at(end), self.store.changed:
                    await self.store.changed.wait_for(
                        lambda seen=revision: self.store.revision > seen or not self.up
                    )
            except TimeoutError:
                return
            if not self.up:
                raise Unreachable("connection reset")

    def _ask(self, path: str) -> None:
        self.asked.append((asyncio.get_running_loop().time(), path))
        if not self.up:
            raise Unreachable("connection refused")

    def _kind(self, path: str) -> Kind:
        for kind in self.catalog:
            if path.endswith(f"/{kind.plural}"):
                return kind
        raise Missing(path)

    def _resources(self, group: str, version: str) -> bytes:
        found = [k.plural for k in self.catalog if k.group == group and version in k.versions]
        if not found:
            raise Missing("no such group")
        return json.dumps({"resources": [{"name": each} for each in found]}).encode()


def _name(manifest: Manifest) -> Name:
    meta = manifest["metadata"]
    return meta.get("namespace", ""), meta["name"]


def _view(kind: Kind, query: Mapping[str, str]) -> View:
    return View(kind, "", query.get("labelSelector", ""), query.get("fieldSelector", ""))


def _line(type_: str, object_: Manifest) -> bytes:
    return json.dumps({"type": type_, "object": object_}).encode()
