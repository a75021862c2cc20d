"""kubectl, as far as the tests need one: apply, status, delete, patch. Works on any API server."""

import asyncio
import contextlib
import json
import ssl
from types import TracebackType
from typing import Any, Self

import aiohttp

from tests.support.kube.catalog import CRDS, Catalog, Kind, of_crd

Manifest = dict[str, Any]
MERGE_PATCH = "application/merge-patch+json"


class Answer(Exception):
    """The server did not do it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text[:300]}")
        self.code = code


class Admin:
    """May do everything."""

    def __init__(self, url: str, ca: str, token: str) -> None:
        self._url = url
        self._tls = ssl.create_default_context(cadata=ca)
        self._headers = {"Authorization": f"Bearer {token}"}
        self._catalog = Catalog()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(headers=self._headers)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def apply(self, *manifests: Manifest) -> None:
        """Create, or replace what is there; then the status, where that is written apart."""
        for manifest in manifests:
            await self._apply(manifest)

    async def delete(self, manifest: Manifest) -> None:
        """Deleting what is not there is an error."""
        await self.call("DELETE", self._path(manifest, named=True))

    async def patch(self, manifest: Manifest, patch: Manifest) -> None:
        """Merge into what is there."""
        await self.call("PATCH", self._path(manifest, named=True), patch, MERGE_PATCH)

    async def get(self, manifest: Manifest) -> Manifest:
        """As it stands."""
        return await self.call("GET", self._path(manifest, named=True))

    async def _apply(self, manifest: Manifest) -> None:
        """Look first: a Service's address is taken, also by itself, before its name is."""
        kind = self._catalog.of(manifest)
        path = self._path(manifest, named=True)
        present = await self._present(path)
        if present is None:
            await self.call("POST", self._path(manifest, named=False), manifest)
        else:
            await self._replace(kind, path, manifest, present)
        if kind.has_status and "status" in manifest:
            patch = {"status": manifest["status"]}
            await self.call("PATCH", f"{path}/status", patch, MERGE_PATCH)
        if kind.title == CRDS.title:
            self._catalog.add(of_crd(manifest))
            await self._served(of_crd(manifest))

    async def _present(self, path: str) -> Manifest | None:
        try:
            return await self.call("GET", path)
        except Answer as answer:
            if answer.code != 404:
                raise
            return None

    async def _replace(self, kind: Kind, path: str, manifest: Manifest, present: Manifest) -> None:
        """Core kinds are merged: a server has filled in fields that it lets nobody clear."""
        if kind.group:
            version = {"resourceVersion": present["metadata"]["resourceVersion"]}
            body = {**manifest, "metadata": {**manifest["metadata"], **version}}
            await self.call("PUT", path, body)
        else:
            await self.call("PATCH", path, _patch(present, manifest), MERGE_PATCH)

    async def _served(self, kind: Kind) -> None:
        """A new kind takes a moment to be served, and another to be found where clients look."""
        group = f"/apis/{kind.group}/{kind.versions[0]}"
        for _ in range(300):
            with contextlib.suppress(Answer):
                await self.call("GET", f"{group}/{kind.plural}")
                found = await self.call("GET", group)
                if kind.plural in {each["name"] for each in found["resources"]}:
                    return
            await asyncio.sleep(0.1)
        raise AssertionError(f"{kind.title} is not served after half a minute")

    def _path(self, manifest: Manifest, *, named: bool) -> str:
        kind = self._catalog.of(manifest)
        version = manifest["apiVersion"].rpartition("/")[2]
        path = f"/apis/{kind.group}/{version}" if kind.group else f"/api/{version}"
        if kind.namespaced:
            path += f"/namespaces/{manifest['metadata']['namespace']}"
        path += f"/{kind.plural}"
        return f"{path}/{manifest['metadata']['name']}" if named else path

    async def call(
        self, method: str, path: str, body: object = None, content: str = "application/json"
    ) -> Manifest:
        """One request; raises ``Answer`` for anything but success."""
        assert self._session is not None
        async with self._session.request(
            method,
            self._url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={} if body is None else {"Content-Type": content},
            ssl=self._tls,
        ) as response:
            text = await response.text()
            if response.status >= 300:
                raise Answer(response.status, text)
            found: Manifest = json.loads(text)
            return found


def _patch(present: Manifest, wanted: Manifest) -> Manifest:
    """Spec merged; labels and annotations exactly as wanted."""
    meta: Manifest = {}
    for field in ("labels", "annotations"):
        gone = dict.fromkeys(present["metadata"].get(field) or {})
        if change := {**gone, **(wanted["metadata"].get(field) or {})}:
            meta[field] = change
    rest = {"spec": wanted["spec"]} if "spec" in wanted else {}
    return {"metadata": meta, **rest}
