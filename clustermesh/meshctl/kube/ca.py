"""``meshctl ca`` on the Secrets of a cluster: they are read, and written back as they are.

No key is shown or kept elsewhere. What is written is written only on top of what was read.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives import hashes

from clustermesh.certificates import CertificateError, parsed
from clustermesh.meshctl.context import CHOSEN, mesh_path
from clustermesh.meshctl.errors import Exit, MeshctlError
from clustermesh.meshfile import Cluster, load
from clustermesh.pki import Authority
from clustermesh.places import secrets
from clustermesh.places.connection import Connection, connection
from clustermesh.places.objects import ObjectShelf
from clustermesh.status import CertificateStatus
from clustermesh.trust import expiry
from clustermesh.trust.issuing import Kind
from clustermesh.trust.keeping import Keys, Leaf
from clustermesh.trust.rotation import Rotation


class Seat(NamedTuple):
    """A namespace of a cluster."""

    made: Connection
    namespace: str


def seat_of(cluster: Cluster) -> Seat:
    return Seat(connection(cluster.context, cluster.kubeconfig), cluster.namespace)


def seat(cluster: str, mesh: Path | None) -> Seat:
    """Where a cluster is that may have nothing of the mesh yet: the one --context, or the mesh
    file's. Raises ``UsageError``.
    """
    chosen = CHOSEN.get()
    if len(chosen.contexts) == 1:
        return Seat(connection(chosen.contexts[0], chosen.kubeconfig), chosen.namespace)
    where = "say where: --dir DIR for files, or one --context NAME for Secrets of a cluster."
    if chosen.contexts:
        raise MeshctlError(where, Exit.USAGE)
    found = load(mesh_path(mesh)).cluster(cluster)
    if not found.context:
        raise MeshctlError(where, Exit.USAGE)
    return seat_of(found)


def keys(at: Seat) -> Keys:
    """Where the authority is, or will be."""
    return Keys(secrets.authority_shelf(*at) or secrets.secret(*at, secrets.AUTHORITIES[0]))


def authority(at: Seat) -> Authority:
    """Raises ``CertificateError`` when there is none."""
    return secrets.authority(*at)


def has_key(at: Seat, key: object) -> bool:
    """Whether the authority there, if any, has this public key."""
    try:
        return secrets.authority(*at).root.public_key() == key
    except CertificateError:
        return False


def server_fingerprint(at: Seat) -> str:
    """SHA-256 of what the etcd should present. Raises ``CertificateError``."""
    shelf = secrets.certificate(*at, "server")
    found = parsed(shelf.read("tls.crt"), shelf.where("tls.crt"))[0]
    return found.fingerprint(hashes.SHA256()).hex()


def leaf(at: Seat, kind: Kind) -> Leaf:
    """The Secret of a certificate, as the chart has it."""
    return Leaf(secrets.certificate(*at, str(kind)), "tls.crt", "tls.key", "ca.crt")


def certificates(at: Seat) -> Iterator[CertificateStatus]:
    """Every certificate in the Secrets that trust is made of."""
    for shelf in shelves(at):
        for name, held in shelf.pieces().items():
            if name.endswith(".crt"):
                yield from expiry.of(held, name, shelf.where(name))


def shelves(at: Seat) -> list[ObjectShelf]:
    """The Secrets with certificates of a cluster: authority, own, those for its remotes."""
    names = (*secrets.AUTHORITIES, secrets.FOR_AGENTS, secrets.FOR_KVSTOREMESH)
    return [
        *(secrets.secret(*at, name) for name in names),
        *(secrets.certificate(*at, kind) for kind in secrets.KINDS),
    ]


def rotation(at: Seat, name: str, others: list[Seat]) -> Rotation:
    """Of the cluster's authority; ``others`` are clusters that read its etcd."""
    secrets.authority(*at)  # says what is missing
    own = keys(at)
    places = [it for one in (at, *others) for it in shelves(one) if it != own.shelf]
    return Rotation(own, places, name=name)
