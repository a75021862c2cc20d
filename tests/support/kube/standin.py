"""The test API server as a process that takes the flags of a real one.

So that what starts real ones (``real.py``) is tried where there is none. Its state outlives it, in
a file in ``--cert-dir``; like a real one it has no history after a start.
"""

import asyncio
import csv
import json
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.kube.catalog import CRDS, Catalog, of_crd
from tests.support.kube.rbac import User
from tests.support.kube.server import TestApi
from tests.support.kube.store import Store


def main() -> None:
    flags = dict(each.removeprefix("--").partition("=")[::2] for each in sys.argv[1:])
    asyncio.run(serve(flags))


async def serve(flags: Mapping[str, str]) -> None:
    """Until killed; every write is in the file before the next one is waited for."""
    file = Path(flags["cert-dir"]) / "standin.json"
    store = stored(file)
    api = TestApi(tls=_tls(flags), users=_users(flags), store=store, catalog=_catalog(store))
    api.port = int(flags["secure-port"])
    await api.start()
    seen = 0
    while True:
        async with store.changed:
            await store.changed.wait_for(lambda seen=seen: store.revision != seen)
            seen = store.revision
            _write(file, store)


def stored(file: Path) -> Store:
    """What the last one knew; a new cluster has two namespaces."""
    store = Store()
    if file.exists():
        revision, entries = json.loads(file.read_text())
        store.revision = store.oldest = revision + 1
    else:
        entries = [
            ("namespaces", "", name, _namespace(name)) for name in ("default", "kube-system")
        ]
    for title, space, name, manifest in entries:
        store.objects.setdefault(title, {})[space, name] = manifest
    return store


def _namespace(name: str) -> dict[str, object]:
    labels = {"kubernetes.io/metadata.name": name}
    return {"metadata": {"name": name, "uid": name, "resourceVersion": "1", "labels": labels}}


def _write(file: Path, store: Store) -> None:
    entries = [
        (title, space, name, manifest)
        for title, held in store.objects.items()
        for (space, name), manifest in held.items()
    ]
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps([store.revision, entries]))
    fresh.replace(file)


def _catalog(store: Store) -> Catalog:
    catalog = Catalog()
    for crd in store.objects.get(CRDS.title, {}).values():
        catalog.add(of_crd(crd))
    return catalog


def _tls(flags: Mapping[str, str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(flags["tls-cert-file"], flags["tls-private-key-file"])
    context.load_verify_locations(flags["client-ca-file"])
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _users(flags: Mapping[str, str]) -> dict[str, User]:
    with Path(flags["token-auth-file"]).open(newline="") as file:
        return {
            token: User(name, frozenset(",".join(groups).split(",")))
            for token, name, _, *groups in csv.reader(file)
        }


if __name__ == "__main__":
    main()
