"""The file of a cluster's etcd users (contract kvstore 7): who may read it."""

from pathlib import Path

import msgspec
import yaml

from clustermesh.certificates import CertificateError
from clustermesh.pki import write_private
from kvstore.config import ConfigError
from kvstore.users import PEER_ROLE, User, load_users


def read(path: Path) -> tuple[User, ...]:
    """Everybody in the file; nobody when there is none. Raises ``CertificateError``."""
    try:
        return load_users(path)
    except FileNotFoundError:
        return ()
    except ConfigError as error:
        raise CertificateError(f"{path}: {error}") from None


def has(path: Path, name: str) -> bool:
    """Whether a peer is let in."""
    return any(user.name == name for user in read(path))


def add(path: Path, name: str) -> bool:
    """Let a peer in; False when it is already."""
    found = read(path)
    if any(user.name == name for user in found):
        return False
    _write(path, (*found, User(name, PEER_ROLE)))
    return True


def remove(path: Path, name: str) -> bool:
    """Let a peer in no more; False when it is not."""
    found = read(path)
    if all(user.name != name for user in found):
        return False
    _write(path, tuple(user for user in found if user.name != name))
    return True


def _write(path: Path, users: tuple[User, ...]) -> None:
    document = {"users": msgspec.to_builtins(users)}
    write_private(path, yaml.safe_dump(document, sort_keys=False).encode())
