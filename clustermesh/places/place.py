"""All that connecting reads and writes in one cluster, and where it is on this machine."""

from collections.abc import Callable
from typing import NamedTuple

from clustermesh.meshfile import NOWHERE, Cluster
from clustermesh.pki import Authority
from clustermesh.places.shelf import Folder, Nothing, Shelf


class Place(NamedTuple):
    """One cluster's, in files or in objects of its Kubernetes."""

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


def on_files(cluster: Cluster) -> Place:
    """Of a cluster whose entry in the mesh file names paths of this machine."""
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
