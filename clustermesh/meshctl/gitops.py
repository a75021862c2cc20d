"""``meshctl connect --print``: the Secrets that connecting would write, as manifests to apply."""

import base64
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from clustermesh.meshctl.peering import Peering, certificates, client_file
from clustermesh.meshctl.places import place_of
from clustermesh.places.place import Place
from clustermesh.places.shelf import MOUNTED

FOR_AGENTS = "cilium-clustermesh"
FOR_KVSTOREMESH = "cilium-kvstoremesh"


def secrets(wanted: Sequence[Peering]) -> Iterator[dict[str, Any]]:
    """For each reader the Secrets of contract kvstore 5.1, with these peerings and nothing else."""
    for _, mine in groupby(sorted(wanted, key=_reader), key=_reader):
        yield from _of_reader(list(mine))


def notes(wanted: Sequence[Peering]) -> Iterator[str]:
    """What the Secrets need on the other side, in words."""
    for peering in wanted:
        there = place_of(peering.source)
        if not there.shared_user:
            user = there.user(peering.reader.name)
            yield (
                f"{peering.source.name}: its etcd must have the user {user} with the role remote"
                " (chart: `peers`; Cilium: clustermesh.config.clusters; else the users file)"
            )


def manifest(namespace: str, name: str, pieces: dict[str, bytes]) -> dict[str, Any]:
    """A Secret as kubectl applies it."""
    data = {key: base64.b64encode(value).decode() for key, value in pieces.items()}
    metadata = {"name": name, "namespace": namespace}
    return {
        "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": data,
    }  # fmt: skip


def _of_reader(mine: Sequence[Peering]) -> Iterator[dict[str, Any]]:
    reader = mine[0].reader
    here = place_of(reader)
    pieces: dict[str, bytes] = {}
    for peering in mine:
        pieces |= _pieces(peering, here)
    if here.agents is None:
        yield manifest(reader.namespace, FOR_AGENTS, pieces)
        return
    copies = {peering.source.name: here.agents_file() for peering in mine}
    yield manifest(reader.namespace, FOR_AGENTS, copies)
    yield manifest(reader.namespace, FOR_KVSTOREMESH, pieces)


def _pieces(peering: Peering, here: Place) -> dict[str, bytes]:
    made = certificates(peering, here, place_of(peering.source))
    return {peering.source.name: client_file(peering, MOUNTED), **made}


def _reader(peering: Peering) -> str:
    return peering.reader.name
