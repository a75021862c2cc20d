"""A cluster whose certificates are our own: files of ``clustermesh.pki`` under a real etcd."""

from pathlib import Path

from clustermesh.meshfile import Cluster
from clustermesh.pki import Authority, write_private


class Pki:
    """A directory as ``meshctl ca`` makes it; ``Etcd`` and ``Apiserver`` take it for their TLS."""

    def __init__(self, folder: Path, cluster: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.cluster = cluster
        self.ca = folder / "ca.crt"
        self.key = folder / "ca.key"
        if not self.ca.exists():
            authority = Authority.create(cluster)
            authority.write(self.ca, self.key)
            authority.server(names=["localhost"]).write(
                folder / "server.crt", folder / "server.key"
            )

    @property
    def authority(self) -> Authority:
        return Authority.load(self.ca, self.key)

    def issue(self, common_name: str, *_names: str, file: str | None = None) -> tuple[Path, Path]:
        """Certificate and key, made once and then kept."""
        stem = self.folder / (file or common_name)
        pair = stem.with_suffix(".crt"), stem.with_suffix(".key")
        if not pair[0].exists():
            self.authority.client(common_name).write(*pair)
        return pair


def member(
    folder: Path, name: str, number: int, pki: Pki, *, url: str = "", apiserver: str = ""
) -> Cluster:
    """The mesh file's entry of a cluster, with the directories that it names."""
    remotes = folder / "remotes"
    remotes.mkdir(parents=True, exist_ok=True)
    users = folder / "users.yaml"
    if not users.exists():
        write_private(users, b"users: []\n")
    return Cluster(
        name=name,
        id=number,
        endpoints=(url or f"https://{name}.mesh.cilium.io:2379",),
        ca_cert=pki.ca,
        ca_key=pki.key,
        config_dir=remotes,
        users_file=users,
        apiserver=apiserver,
    )
