"""The files by which a cluster reads another's etcd, as ``meshctl connect`` writes them."""

from pathlib import Path

from clustermesh.pki import write_private
from clustermesh.trust.messages import Member, client_file


class PeerFiles:
    """In a cluster's directory of etcd client files (contract kvstore 5.1), those of one peer.

    Where a kvstoremesh stands between, agents have a directory of their own, and one client file
    (``cache``) that leads to the copy of every peer.
    """

    def __init__(
        self,
        directory: Path,
        peer: str,
        *,
        agents: Path | None = None,
        cache: Path | None = None,
    ) -> None:
        self.config = directory / peer
        self.ca = directory / f"{peer}.etcd-client-ca.crt"
        self.certificate = directory / f"{peer}.etcd-client.crt"
        self.key = directory / f"{peer}.etcd-client.key"
        self._agents = None if agents is None else agents / peer
        self._cache = cache

    def trust(self, bundle: str) -> None:
        """Who vouches for the peer's server."""
        write_private(self.ca, bundle.encode())

    def connect(self, member: Member, certificate: bytes) -> None:
        """The certificate first, and last what starts the connection."""
        write_private(self.certificate, certificate)
        _unless_same(self.config, client_file(member, self.config.parent))
        if self._agents is not None and self._cache is not None:
            _unless_same(self._agents, self._cache.read_bytes())


def _unless_same(path: Path, content: bytes) -> None:
    if not path.exists() or path.read_bytes() != content:
        write_private(path, content)
