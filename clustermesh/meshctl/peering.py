"""What connecting two clusters changes on disk: certificates, the peer's user, the client file.

One *peering* is one direction: the reader's agents follow the source's etcd. Everything is
level-based: making a peering twice changes nothing the second time.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from clustermesh.meshctl.errors import Exit, MeshctlError
from clustermesh.meshctl.meshfile import Cluster, Mesh
from clustermesh.pki import Authority, write_private


class Change(NamedTuple):
    """One thing to do, in words for the operator. Those of lower ``order`` are done first."""

    order: int
    what: str
    do: Callable[[], None]


class Peering(NamedTuple):
    """``reader`` follows ``source``."""

    reader: Cluster
    source: Cluster

    @property
    def user(self) -> str:
        """The certificate name and etcd user of contract kvstore 7 (authMode ``cluster``)."""
        return f"remote-{self.reader.name}"

    @property
    def config(self) -> Path:
        """The client file, named after the cluster it leads to (contract kvstore 5.1)."""
        return self.reader.config_dir / self.source.name

    @property
    def agent_config(self) -> Path | None:
        """The file by which agents read the copy that a kvstoremesh makes, where there is one."""
        directory = self.reader.agent_config_dir
        return None if directory is None else directory / self.source.name

    @property
    def ca(self) -> Path:
        return self._beside("-ca.crt")

    @property
    def certificate(self) -> Path:
        return self._beside(".crt")

    @property
    def key(self) -> Path:
        return self._beside(".key")

    def _beside(self, suffix: str) -> Path:
        return self.reader.config_dir / f"{self.source.name}.etcd-client{suffix}"


def peerings(mesh: Mesh, names: Sequence[str]) -> list[Peering]:
    """Both directions between every two of the named clusters."""
    clusters = [mesh.cluster(name) for name in names]
    for name in names:
        if names.count(name) > 1:
            raise MeshctlError(f"{name} is named twice: name different clusters.", Exit.USAGE)
    if len(clusters) < 2:
        raise MeshctlError("name at least two clusters.", Exit.USAGE)
    return [Peering(reader, source) for reader, source in permutations(clusters, 2)]


def making(peering: Peering) -> Iterator[Change]:
    """What is missing: certificate and user first, the client file last, since it starts things."""
    authority = Authority.load(peering.source.ca_cert, peering.source.ca_key)
    reader, source = peering.reader.name, peering.source.name
    whole = peering.key.is_file() and authority.vouches_for(peering.certificate, peering.user)
    if not whole:
        pair = authority.client(peering.user)
        yield Change(
            0,
            f"{reader}: certificate {peering.user}, issued by {source} ({peering.certificate})",
            lambda: pair.write(peering.certificate, peering.key),
        )
    if _content(peering.ca) != authority.bundle:
        yield Change(
            0,
            f"{reader}: CA certificate of {source} ({peering.ca})",
            lambda: write_private(peering.ca, authority.bundle),
        )
    users = _users(peering.source.users_file)
    if not any(user.get("name") == peering.user for user in users):
        yield Change(
            0,
            f"{source}: etcd user {peering.user}, who may read ({peering.source.users_file})",
            lambda: _write_users(
                peering.source.users_file,
                [*_users(peering.source.users_file), {"name": peering.user, "role": "remote"}],
            ),
        )
    if _content(peering.config) != client_file(peering):
        yield Change(
            1,
            f"{reader}: follows {source} ({peering.config})",
            lambda: write_private(peering.config, client_file(peering)),
        )
    if (
        (cached := peering.agent_config) is not None
        and (client := peering.reader.cache_client) is not None
        and _content(cached) != _content(client)
    ):
        yield Change(
            1,
            f"{reader}: its agents read the copy of {source} ({cached})",
            partial(_copy, client, cached),
        )


def unmaking(peering: Peering) -> Iterator[Change]:
    """What is left of a peering: the client file first, so that agents drain before anything."""
    reader, source = peering.reader.name, peering.source.name
    if (cached := peering.agent_config) is not None and cached.exists():
        yield Change(
            0,
            f"{reader}: its agents read the copy of {source} no more ({cached})",
            partial(cached.unlink, missing_ok=True),
        )
    if peering.config.exists():
        yield Change(
            0,
            f"{reader}: follows {source} no more ({peering.config})",
            lambda: peering.config.unlink(missing_ok=True),
        )
    users = _users(peering.source.users_file)
    if any(user.get("name") == peering.user for user in users):
        yield Change(
            1,
            f"{source}: etcd user {peering.user} removed ({peering.source.users_file})",
            lambda: _write_users(
                peering.source.users_file,
                [u for u in _users(peering.source.users_file) if u.get("name") != peering.user],
            ),
        )
    for path in (peering.ca, peering.certificate, peering.key):
        if path.exists():
            yield Change(1, f"{reader}: removed {path}", partial(path.unlink, missing_ok=True))


def client_file(peering: Peering) -> bytes:
    """The etcd client YAML of contract kvstore 5.1."""
    document: dict[str, Any] = {
        "endpoints": list(peering.source.endpoints),
        "trusted-ca-file": str(peering.ca),
        "cert-file": str(peering.certificate),
        "key-file": str(peering.key),
    }
    if peering.source.host_aliases:
        document["cilium-host-aliases"] = {
            host: {"ips": list(ips)} for host, ips in peering.source.host_aliases.items()
        }
    return yaml.safe_dump(document, sort_keys=False).encode()


def _users(path: Path) -> list[dict[str, Any]]:
    content = _content(path)
    try:
        document = (yaml.safe_load(content) if content else None) or {}
    except yaml.YAMLError as error:
        raise MeshctlError(f"{path} is not YAML: {' '.join(str(error).split())}.") from error
    users = document.get("users", []) if isinstance(document, dict) else None
    if not isinstance(users, list | None) or not isinstance(document, dict):
        raise MeshctlError(f"{path}: expected a list under `users`.")
    return [user for user in users or [] if isinstance(user, dict)]


def _write_users(path: Path, users: Sequence[dict[str, Any]]) -> None:
    write_private(path, yaml.safe_dump({"users": list(users)}, sort_keys=False).encode())


def _copy(source: Path, target: Path) -> None:
    write_private(target, source.read_bytes())


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
