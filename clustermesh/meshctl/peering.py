"""What connecting two clusters changes: certificates, the peer's user, the client file.

One *peering* is one direction: the reader's agents follow the source's etcd. Everything is
level-based: making a peering twice changes nothing the second time.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from enum import StrEnum
from functools import partial
from itertools import permutations
from typing import Any, NamedTuple

import yaml

from clustermesh.meshctl import api
from clustermesh.meshctl.desk import desk_of, usable
from clustermesh.meshctl.errors import Exit, MeshctlError
from clustermesh.meshctl.places import place_of
from clustermesh.meshfile import Cluster, Mesh
from clustermesh.places.place import Place
from clustermesh.places.shelf import Shelf
from clustermesh.trust import users


class Mode(StrEnum):
    """Who follows whom; the words are those of ``cilium clustermesh connect``."""

    MESH = "mesh"
    """Every cluster follows every other."""
    BIDIRECTIONAL = "bidirectional"
    """The first and each of the others follow each other."""
    UNICAST = "unicast"
    """The first follows each of the others."""


class Change(NamedTuple):
    """One thing to do, in words for the operator. Those of lower ``order`` are done first.

    ``undo`` restores what was there when the change was planned.
    """

    order: int
    what: str
    do: Callable[[], object]
    undo: Callable[[], object]


class Peering(NamedTuple):
    """``reader`` follows ``source``."""

    reader: Cluster
    source: Cluster

    @property
    def pair(self) -> frozenset[str]:
        """The two clusters, whichever follows the other."""
        return frozenset((self.reader.name, self.source.name))

    @property
    def ca(self) -> str:
        return self._beside("-ca.crt")

    @property
    def certificate(self) -> str:
        return self._beside(".crt")

    @property
    def key(self) -> str:
        return self._beside(".key")

    def _beside(self, suffix: str) -> str:
        return f"{self.source.name}.etcd-client{suffix}"


def peerings(mesh: Mesh, names: Sequence[str], mode: Mode = Mode.MESH) -> list[Peering]:
    """The directions that a mode makes of the named clusters."""
    clusters = [mesh.cluster(name) for name in names]
    for name in names:
        if names.count(name) > 1:
            raise MeshctlError(f"{name} is named twice: name different clusters.", Exit.USAGE)
    if len(clusters) < 2:
        raise MeshctlError("name at least two clusters.", Exit.USAGE)
    first, *others = clusters
    match mode:
        case Mode.MESH:
            return [Peering(reader, source) for reader, source in permutations(clusters, 2)]
        case Mode.BIDIRECTIONAL:
            return [it for other in others for it in (Peering(first, other), Peering(other, first))]
        case Mode.UNICAST:
            return [Peering(first, other) for other in others]


def exists(peering: Peering) -> bool:
    """Whether the reader follows the source already, well or badly."""
    return bool(place_of(peering.reader).remotes.read(peering.source.name))


def making(peering: Peering) -> Iterator[Change]:
    """What is missing: certificate and user first, the client file last, since it starts things."""
    here, there = place_of(peering.reader), place_of(peering.source)
    reader, source = peering.reader.name, peering.source.name
    yield from _certificates(peering, here, there)
    user = there.user(reader)
    if there.users is not None and not users.has(there, user):
        yield Change(
            0,
            f"{source}: etcd user {user}, who may read ({users.where(there)})",
            partial(users.add, there, user),
            partial(users.remove, there, user),
        )
    wanted = client_file(peering, here.remotes.directory)
    if here.remotes.read(source) != wanted:
        yield _put(here.remotes, source, wanted, f"{reader}: follows {source}", order=1)
    if here.agents is not None and here.agents.read(source) != (copy := here.agents_file()):
        what = f"{reader}: its agents read the copy of {source}"
        yield _put(here.agents, source, copy, what, order=1)


def unmaking(peering: Peering) -> Iterator[Change]:
    """What is left of a peering: the client file first, so that agents drain before anything.

    A side whose API server does not answer is left as it is: the other side is enough.
    """
    reader, source = peering.reader.name, peering.source.name
    with suppress(api.NoAnswer):
        here = place_of(peering.reader)
        if here.agents is not None and here.agents.read(source):
            what = f"{reader}: its agents read the copy of {source} no more"
            yield _put(here.agents, source, None, what)
        if here.remotes.read(source):
            yield _put(here.remotes, source, None, f"{reader}: follows {source} no more")
        for name in (peering.ca, peering.certificate, peering.key):
            if here.remotes.read(name):
                what = f"{reader}: removed {here.remotes.where(name)}"
                yield _put(here.remotes, name, None, what, order=1)._replace(what=what)
    with suppress(api.NoAnswer):
        yield from _revoking(peering, place_of(peering.source))
    with suppress(api.NoAnswer, MeshctlError):  # told by who asks `desk.unasked`
        yield from _tokens(peering)


def _tokens(peering: Peering) -> Iterator[Change]:
    """What the reader could come back with, without being connected by anybody.

    Where no apiserver answers, or none has tokens, there is nothing to take back.
    """
    reader, source = peering.reader.name, peering.source
    desk = desk_of(source)
    for one in usable(desk, reader):
        what = f"{source.name}: join token {one.id} for {reader} revoked"
        yield Change(2, what, partial(desk.revoke, one.id), partial(_stays_revoked, what))


def _stays_revoked(what: str) -> None:
    raise MeshctlError(f"{what}, for good: make another with `meshctl token create`.")


def _revoking(peering: Peering, there: Place) -> Iterator[Change]:
    user = there.user(peering.reader.name)
    if there.users is not None and not there.shared_user and users.has(there, user):
        yield Change(
            1,
            f"{peering.source.name}: etcd user {user} removed ({users.where(there)})",
            partial(users.remove, there, user),
            partial(users.add, there, user),
        )


def client_file(peering: Peering, directory: str) -> bytes:
    """The etcd client YAML of contract kvstore 5.1; certificates are in ``directory``."""
    if not peering.source.endpoints:
        raise MeshctlError(
            f"nobody knows how the etcd of {peering.source.name} is reached: give the mesh file its"
            " `endpoints`, or its Service an address."
        )
    document: dict[str, Any] = {
        "endpoints": list(peering.source.endpoints),
        "trusted-ca-file": f"{directory}/{peering.ca}",
        "key-file": f"{directory}/{peering.key}",
        "cert-file": f"{directory}/{peering.certificate}",
    }
    if peering.source.host_aliases:
        document["cilium-host-aliases"] = {
            host: {"ips": list(ips)} for host, ips in peering.source.host_aliases.items()
        }
    return yaml.safe_dump(document, sort_keys=False).encode()


def certificates(peering: Peering, here: Place, there: Place) -> dict[str, bytes]:
    """Key, certificate and CA bundle as they should be, by name. What is right is kept."""
    authority, user = there.authority(), there.user(peering.reader.name)
    key, certificate = here.remotes.read(peering.key), here.remotes.read(peering.certificate)
    if not (key and authority.vouches_for_pem(certificate, user)):
        pair = authority.client(user)
        key, certificate = pair.key, pair.certificate
    return {
        peering.key: key,
        peering.certificate: certificate,
        peering.ca: authority.bundle,
    }


def _certificates(peering: Peering, here: Place, there: Place) -> Iterator[Change]:
    wanted, shelf = certificates(peering, here, there), here.remotes
    reader, source = peering.reader.name, peering.source.name
    pair = (peering.key, peering.certificate)
    before = [shelf.read(name) for name in pair]
    after = [wanted[name] for name in pair]
    if before != after:
        user, where = there.user(reader), shelf.where(peering.certificate)
        yield Change(
            0,
            f"{reader}: certificate {user}, issued by {source} ({where})",
            partial(_put_pair, shelf, peering, *after),
            partial(_put_pair, shelf, peering, *before),
        )
    if shelf.read(peering.ca) != wanted[peering.ca]:
        yield _put(shelf, peering.ca, wanted[peering.ca], f"{reader}: CA certificate of {source}")


def _put(shelf: Shelf, name: str, content: bytes | None, what: str, *, order: int = 0) -> Change:
    before = shelf.read(name) or None
    return Change(
        order,
        f"{what} ({shelf.where(name)})",
        partial(shelf.put, name, content),
        partial(shelf.put, name, before),
    )


def _put_pair(shelf: Shelf, peering: Peering, key: bytes, certificate: bytes) -> None:
    """The key first, so that no certificate is ever seen without its key."""
    shelf.put_all({peering.key: key or None, peering.certificate: certificate or None})
