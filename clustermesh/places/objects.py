"""The keys of a Secret or ConfigMap as a shelf; others may write to the same object."""

import base64
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, NamedTuple

from clustermesh.places.connection import Connection, Object
from clustermesh.places.shelf import MOUNTED, Taken

TRIES: Final = 5
"""Writes that meet somebody else's, each on top of what is there by then."""

TLS: Final = "kubernetes.io/tls"
"""Such a Secret must have ``tls.crt`` and ``tls.key`` whenever it is there."""

OURS: Final = {"app.kubernetes.io/managed-by": "meshctl"}
"""Labels of an object that we made: it goes when its last key goes."""


class ObjectShelf(NamedTuple):
    """``kind`` is Secret or ConfigMap; other keys of the object are left as they are."""

    connection: Connection
    kind: str
    namespace: str
    name: str
    sort: str = "Opaque"
    """Type of a Secret that is made."""

    @property
    def directory(self) -> str:
        return MOUNTED

    def where(self, name: str) -> str:
        return f"{self.kind} {self.namespace}/{self.name}, {name}"

    def pieces(self) -> dict[str, bytes]:
        found = self.connection.get(self._path)
        return {name: self._held(found, name) for name in sorted(_data(found))}

    def read(self, name: str) -> bytes:
        return self._held(self.connection.get(self._path), name)

    def exists(self) -> bool:
        return self.connection.get(self._path) is not None

    def put(self, name: str, content: bytes | None) -> None:
        self.put_all({name: content})

    def put_all(self, pieces: Mapping[str, bytes | None]) -> None:
        for _ in range(TRIES - 1):
            try:
                self._write(self.connection.get(self._path), pieces)
            except Taken:
                continue
            return
        self._write(self.connection.get(self._path), pieces)

    def swap(self, name: str, before: bytes, after: bytes) -> None:
        """What others do to other keys meanwhile is met with another try."""
        for _ in range(TRIES):
            found = self.connection.get(self._path)
            if self._held(found, name) != before:
                break
            with suppress(Taken):
                self._write(found, {name: after})
                return
        raise Taken(f"{self.where(name)} has been changed by somebody else.")

    def _held(self, found: Object | None, name: str) -> bytes:
        text = _data(found).get(name)
        if text is None:
            return b""
        return base64.b64decode(text) if self._coded else text.encode()

    def _write(self, found: Object | None, pieces: Mapping[str, bytes | None]) -> None:
        """On top of what was read; raises ``Taken`` when that is not there any more."""
        data = _data(found)
        for name, content in pieces.items():
            if content is None:
                data.pop(name, None)
            else:
                data[name] = base64.b64encode(content).decode() if self._coded else content.decode()
        if found is None:
            if data:
                self.connection.create(self._collection, self._fresh(data))
        elif not data and _is_ours(found):
            self.connection.delete(self._path, found["metadata"]["resourceVersion"])
        elif data != _data(found):
            self.connection.replace(self._path, {**found, "data": data})

    def _fresh(self, data: dict[str, str]) -> Object:
        made = manifest(self.kind, self.namespace, self.name, data, labels=OURS)
        return {**made, "type": self.sort} if self._coded else made

    @property
    def _coded(self) -> bool:
        return self.kind == "Secret"

    @property
    def _collection(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/{self.kind.lower()}s"

    @property
    def _path(self) -> str:
        return f"{self._collection}/{self.name}"


def manifest(
    kind: str,
    namespace: str,
    name: str,
    data: dict[str, str],
    *,
    labels: dict[str, str] | None = None,
) -> Object:
    """A Secret's ``data`` is in base64 already."""
    metadata = {"name": name, "namespace": namespace, **({"labels": labels} if labels else {})}
    opaque = {"type": "Opaque"} if kind == "Secret" else {}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **opaque, "data": data}


def _data(found: Object | None) -> dict[str, str]:
    return dict((found or {}).get("data") or {})


def _is_ours(found: Object) -> bool:
    labels = found["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, value in OURS.items())
