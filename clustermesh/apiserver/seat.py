"""Where an apiserver that lets clusters join keeps things: paths of a mesh file, or Secrets."""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from clustermesh.apiserver.settings import Settings
from clustermesh.http import Refused

if TYPE_CHECKING:
    from clustermesh.meshfile import Cluster, Mesh
    from clustermesh.pki import Authority
    from clustermesh.places.connection import Connection
    from clustermesh.places.place import Place
    from clustermesh.trust.host import Host


class Seat(Protocol):
    """Read anew for every request. All raise ``MeshError``, ``NoAnswer``, ``ValueError`` and
    ``OSError``.
    """

    def begin(self) -> None:
        """What has to be there before anybody joins. May be repeated."""
        ...

    def host(self) -> "Host": ...

    def authority(self) -> "Authority": ...

    def addresses(self) -> list[str]:
        """``host:port`` by which other clusters reach the join listener. Raises ``Refused``."""
        ...


def seat_of(settings: Settings) -> Seat | None:
    """None: nobody can join."""
    if settings.join_secrets:
        return InSecrets(settings)
    return OnFiles(settings, settings.join_mesh) if settings.join_mesh else None


class OnFiles:
    """The entry of this cluster in a mesh file, and the state directory."""

    def __init__(self, settings: Settings, mesh: Path) -> None:
        self._settings = settings
        self._path = mesh

    def begin(self) -> None:
        """The operator makes the files."""

    def host(self) -> "Host":
        from clustermesh.places.place import on_files
        from clustermesh.trust import books
        from clustermesh.trust.host import Host

        mesh, member = self._mesh()
        return Host(
            member,
            on_files(member),
            books.on_files(self._settings.state_dir / "join"),
            known={one.id: one.name for one in mesh.clusters},
            max_clusters=self._settings.max_connected_clusters,
        )

    def authority(self) -> "Authority":
        from clustermesh.pki import Authority

        _, member = self._mesh()
        return Authority.load(member.ca_cert, member.ca_key)

    def addresses(self) -> list[str]:
        return told(self._settings) or listened(self._settings)

    def _mesh(self) -> "tuple[Mesh, Cluster]":
        """The file as it is now, and the own entry."""
        from clustermesh import meshfile

        settings, path = self._settings, self._path
        mesh = meshfile.load(path)
        found = mesh.cluster(settings.cluster_name)
        if found.id != settings.cluster_id:
            raise ValueError(f"{path}: {found.name} has the id {found.id}, not --cluster-id")
        if settings.cluster_users_config_path != found.users_file:
            raise ValueError(
                f"{path}: users-file is {found.users_file}, but this apiserver keeps to"
                f" --cluster-users-config-path={settings.cluster_users_config_path}"
            )
        return mesh, found


class InSecrets:
    """The Secrets of the namespace, as the chart makes them; replicas share them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def begin(self) -> None:
        """The chart leaves the list of users to us: what Helm renders it would also take back."""
        from clustermesh.trust import issuing, users

        names = [it.strip() for it in self._settings.join_peers.split(",") if it.strip()]
        users.begin(self._place(), [f"remote-{issuing.cluster_name(it)}" for it in names])

    def host(self) -> "Host":
        from clustermesh.meshfile import Cluster
        from clustermesh.places import service
        from clustermesh.trust import books
        from clustermesh.trust.host import Host

        made, space, settings = self._made(), self._space, self._settings
        endpoints, aliases = service.etcd(made, space, settings.cluster_name)
        return Host(
            Cluster(
                name=settings.cluster_name,
                id=settings.cluster_id,
                endpoints=endpoints,
                host_aliases=dict(aliases),
                namespace=space,
            ),
            self._place(),
            books.in_secrets(made, space),
            max_clusters=settings.max_connected_clusters,
        )

    def authority(self) -> "Authority":
        from clustermesh.places import secrets

        return secrets.authority(self._made(), self._space)

    def addresses(self) -> list[str]:
        from clustermesh.places import service

        return told(self._settings) or service.join(self._made(), self._space)

    def _place(self) -> "Place":
        from clustermesh.places import place, secrets

        made, space, behind = self._made(), self._space, self._settings.join_kvstoremesh
        agents = secrets.secret(made, space, secrets.FOR_AGENTS)
        cache = secrets.secret(made, space, secrets.FOR_KVSTOREMESH)
        return place.Place(
            remotes=cache if behind else agents,
            users=secrets.users(made, space),
            users_name=secrets.USERS_KEY,
            authority=self.authority,
            agents=agents if behind else None,
            agents_file=lambda: secrets.to_own_etcd(made, space),
        )

    @property
    def _space(self) -> str:
        from clustermesh.sources.kubernetes.settings import own_namespace

        return self._settings.kube_namespace or own_namespace()

    def _made(self) -> "Connection":
        from clustermesh.places.connection import connection

        kubeconfig = self._settings.kubeconfig
        return connection(self._settings.kube_context, str(kubeconfig or ""))


def told(settings: Settings) -> list[str]:
    """As the operator says."""
    return [it.strip() for it in settings.join_address.split(",") if it.strip()]


def listened(settings: Settings) -> list[str]:
    """Where we listen, when that is one address."""
    listen = settings.join_listen
    if listen and listen.rpartition(":")[0] in ("", "0.0.0.0", "[::]", "::"):  # noqa: S104  # compared
        raise Refused(400, "start the apiserver with --join-address: how others reach it")
    return [listen] if listen else []
