"""The files by which a cluster reads another's etcd, as ``meshctl connect`` writes them."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from clustermesh.places.place import Place
from clustermesh.places.shelf import Shelf
from clustermesh.trust import issuing
from clustermesh.trust.messages import Member, client_file


class PeerFiles:
    """In the place of a cluster, the pieces of one peer (contract kvstore 5.1).

    Where a kvstoremesh stands between, agents have a place of their own, in which every peer's
    file leads to the copy in the own etcd.
    """

    def __init__(self, place: Place, peer: str) -> None:
        self._place = place
        self._peer = peer

    @property
    def is_read(self) -> bool:
        """Whether the cluster has begun to read the peer's etcd."""
        return bool(self._place.remotes.read(self._peer))

    @property
    def has_key(self) -> bool:
        return bool(self._place.remotes.read(self._key))

    def key(self) -> ec.EllipticCurvePrivateKey:
        """With which the peer's etcd is read: made when there is none. Never leaves the place."""
        return issuing.own_key(self._place.remotes, self._key)

    def trust(self, bundle: str) -> None:
        """Who vouches for the peer's server."""
        self._place.remotes.put(f"{self._peer}.etcd-client-ca.crt", bundle.encode())

    def connect(self, member: Member, certificate: bytes) -> None:
        """The certificate first, and last what starts the connection."""
        shelf = self._place.remotes
        shelf.put(f"{self._peer}.etcd-client.crt", certificate)
        _unless_same(shelf, self._peer, client_file(member, Path(shelf.directory)))
        if self._place.agents is not None:
            _unless_same(self._place.agents, self._peer, self._place.agents_file())

    @property
    def _key(self) -> str:
        return f"{self._peer}.etcd-client.key"


def _unless_same(shelf: Shelf, name: str, content: bytes) -> None:
    if shelf.read(name) != content:
        shelf.put(name, content)
