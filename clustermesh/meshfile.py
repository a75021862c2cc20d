"""The mesh file: which clusters there are, and where their certificates, files and agents are."""

import difflib
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
import yaml

from clustermesh.errors import MeshError, UsageError
from clustermesh.pki import write_private

VARIABLE = "MESHCTL_MESH"
NOWHERE = Path()
"""A path that was not given."""

_NEEDED = ("ca_cert", "ca_key", "config_dir", "users_file")
_NEEDED_OF_CILIUM = ("ca_cert", "ca_key")


class Node(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """A node: where its agent's API is, and the bpf file system with the agent's pins."""

    name: str
    agent: str = ""
    bpf_root: str = ""


class Cluster(
    msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True
):
    """A cluster: by paths on this machine, or by a ``context`` of a kubeconfig.

    ``endpoints``: how *other* clusters reach its etcd; had from Kubernetes when left out there.
    ``cilium``: Cilium's own control plane keeps its etcd and the users in it. ``shared_user``: its
    readers are all the etcd user ``remote`` (contract kvstore 7, authMode ``legacy``).
    """

    name: str
    id: int
    endpoints: tuple[str, ...] = ()
    host_aliases: dict[str, tuple[str, ...]] = {}
    context: str = ""
    kubeconfig: str = ""
    namespace: str = "kube-system"
    ca_cert: Path = NOWHERE
    ca_key: Path = NOWHERE
    config_dir: Path = NOWHERE
    agent_config_dir: Path | None = None
    cache_client: Path | None = None
    users_file: Path = NOWHERE
    apiserver: str = ""
    kvstoremesh: str = ""
    nodes: tuple[Node, ...] = ()
    cilium: bool = False
    shared_user: bool = False


class Mesh(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """All clusters that meshctl may connect."""

    clusters: tuple[Cluster, ...]
    max_connected_clusters: int = 255

    def cluster(self, name: str) -> Cluster:
        for cluster in self.clusters:
            if cluster.name == name:
                return cluster
        raise UsageError(_unknown("cluster", name, [c.name for c in self.clusters]))

    def nodes(self, wanted: str = "") -> list[tuple[Cluster, Node]]:
        """Every node, or the one called ``cluster/node``."""
        found = [(cluster, node) for cluster in self.clusters for node in cluster.nodes]
        if not wanted:
            return found
        chosen = [pair for pair in found if full_name(*pair) == wanted]
        if not chosen:
            names = [full_name(*pair) for pair in found]
            raise UsageError(_unknown("node", wanted, names))
        return chosen


def full_name(cluster: Cluster, node: Node) -> str:
    return f"{cluster.name}/{node.name}"


def load(path: Path) -> Mesh:
    """Read a mesh file; the error names the field that is wrong."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        mesh = msgspec.convert(document, Mesh, dec_hook=_path)
    except OSError as error:
        raise MeshError(f"cannot read the mesh file {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise MeshError(f"{path} is not text in UTF-8: {error.reason}.") from error
    except yaml.YAMLError as error:
        raise MeshError(f"{path} is not YAML: {' '.join(str(error).split())}.") from error
    except msgspec.ValidationError as error:
        raise MeshError(f"{path}: {error}.") from error
    for cluster in mesh.clusters:
        _reachable(cluster, str(path))
    _no_duplicates(mesh.clusters, str(path))
    return mesh


def save(mesh: Mesh, path: Path) -> None:
    document = msgspec.to_builtins(mesh, enc_hook=str)
    for cluster in document["clusters"]:
        for field in msgspec.structs.fields(Cluster):
            if cluster[field.encode_name] == _plain(field.default):
                del cluster[field.encode_name]
    write_private(path, yaml.safe_dump(document, sort_keys=False).encode())


def find(given: Path | None, labs: Sequence[Path]) -> Path:
    """The mesh file meant: the one given, the environment's, or that of the only lab there is."""
    if given is not None:
        return given
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE])
    if len(labs) == 1:
        return labs[0]
    if labs:
        names = ", ".join(path.parent.name for path in labs)
        raise UsageError(
            f"several labs are up ({names}): say which mesh is meant,"
            f" for example --mesh {labs[0]}, or set {VARIABLE}."
        )
    raise UsageError(
        f"no mesh is known here: give --mesh FILE or set {VARIABLE};"
        " to try without any cluster, start a lab: meshctl lab up"
    )


def _path(kind: type, value: object) -> Path:
    """The only type in a mesh file that YAML does not know."""
    if kind is not Path or not isinstance(value, str):
        raise ValueError(f"expected a path, found {value!r}")  # msgspec adds where
    return Path(value)


def _plain(default: object) -> object:
    return str(default) if isinstance(default, Path) else default


def _reachable(cluster: Cluster, where: str) -> None:
    """Without a context, what connecting needs must be given."""
    if cluster.context:
        return
    for field in _NEEDED_OF_CILIUM if cluster.cilium else _NEEDED:
        if getattr(cluster, field) == NOWHERE:
            raise MeshError(
                f"{where}: cluster {cluster.name!r} needs `{field.replace('_', '-')}`, or a"
                " `context` of a kubeconfig."
            )


def _no_duplicates(clusters: Sequence[Cluster], where: str) -> None:
    for field in ("name", "id"):
        seen: dict[str, str] = {}
        for cluster in clusters:
            value = str(getattr(cluster, field))
            if value in seen:
                raise MeshError(
                    f"{where}: clusters {seen[value]!r} and {cluster.name!r} have the same {field}"
                    f" {value}; each cluster of a mesh needs its own."
                )
            seen[value] = cluster.name


def _unknown(what: str, name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"there is no {what} {name!r} in this mesh.{hint} It has: {', '.join(known) or 'none'}."
