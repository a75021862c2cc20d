"""Where a cluster keeps what connects it: files on this machine, or objects in its Kubernetes."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from clustermesh.meshctl.errors import MeshctlError
from clustermesh.meshctl.meshfile import NOWHERE, Cluster
from clustermesh.pki import Authority, write_private

MOUNTED: Final = "/var/lib/cilium/clustermesh"
"""Where Cilium's agents and ours find the keys of their Secret as files (contract kvstore 5.1)."""


class Shelf(Protocol):
    """Named pieces: the files of a directory, or the keys of a Secret or ConfigMap."""

    @property
    def directory(self) -> str:
        """Where the processes that read the pieces find them as files."""
        ...

    def read(self, name: str, /) -> bytes:
        """What a piece holds; empty when there is none."""
        ...

    def put(self, name: str, content: bytes | None, /) -> None:
        """Replace a piece in one step; None removes it. Both may be repeated."""
        ...

    def where(self, name: str) -> str:
        """How to tell an operator of the piece."""
        ...


class Place(NamedTuple):
    """All that connecting reads and writes in one cluster."""

    remotes: Shelf
    """The client files of remote clusters, and their certificates (contract kvstore 5.1)."""
    users: Shelf | None
    """Who may read the cluster's etcd (contract kvstore 7); None: not ours to change."""
    users_name: str
    authority: Callable[[], Authority]
    """What signs certificates for readers; raises ``CertificateError``."""
    agents: Shelf | None = None
    """Where agents read which remote clusters there are, when a kvstoremesh stands between."""
    agents_file: Callable[[], bytes] = bytes
    """What such a file holds: it leads to the cluster's own etcd."""
    shared_user: bool = False
    """All readers are the etcd user ``remote``, which is there already."""

    def user(self, reader: str) -> str:
        """The certificate name and etcd user of a reader (contract kvstore 7)."""
        return "remote" if self.shared_user else f"remote-{reader}"


class Folder(NamedTuple):
    """A directory on this machine."""

    path: Path

    @property
    def directory(self) -> str:
        return str(self.path)

    def read(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return b""

    def put(self, name: str, content: bytes | None) -> None:
        if content is None:
            (self.path / name).unlink(missing_ok=True)
        else:
            write_private(self.path / name, content)

    def where(self, name: str) -> str:
        return str(self.path / name)


class Nothing(NamedTuple):
    """Where nothing can be kept: the cluster's files are elsewhere."""

    cluster: str
    directory: str = MOUNTED

    def read(self, _: str) -> bytes:
        return b""

    def put(self, name: str, _: bytes | None) -> None:
        raise MeshctlError(
            f"{self.cluster}: the mesh file gives neither `context` nor `config-dir`, so {name}"
            " cannot be written there; `meshctl connect --print` gives the Secret to apply."
        )

    def where(self, name: str) -> str:
        return f"{name}, by --print"


def place_of(cluster: Cluster) -> Place:
    """What connecting has to know of a cluster's place."""
    if cluster.context:
        from clustermesh.meshctl.kube import places  # its packages are needed for contexts only

        return places.place_of(cluster)
    client, folder = cluster.cache_client, cluster.agent_config_dir
    given = cluster.config_dir != NOWHERE
    users = None if cluster.cilium or cluster.shared_user else Folder(cluster.users_file.parent)
    return Place(
        remotes=Folder(cluster.config_dir) if given else Nothing(cluster.name),
        users=users,
        users_name=cluster.users_file.name,
        authority=lambda: Authority.load(cluster.ca_cert, cluster.ca_key),
        agents=Folder(folder) if folder is not None and client is not None else None,
        agents_file=client.read_bytes if client is not None else bytes,
        shared_user=cluster.shared_user,
    )
