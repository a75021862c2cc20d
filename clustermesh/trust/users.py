"""Who may read a cluster's etcd, as its file or ConfigMap of users says (contract kvstore 7)."""

from collections.abc import Iterable

import msgspec
import yaml

from clustermesh.errors import MeshError
from clustermesh.places.place import Place
from kvstore.config import ConfigError
from kvstore.users import PEER_ROLE, User, parse_users


def read(place: Place) -> tuple[User, ...]:
    """Everybody named; nobody where the users are not ours to change. Raises ``MeshError``."""
    if place.users is None:
        return ()
    try:
        return parse_users(place.users.read(place.users_name))
    except ConfigError as error:
        raise MeshError(f"{where(place)}: {error}.") from None


def has(place: Place, name: str) -> bool:
    """Whether a peer is let in."""
    return any(user.name == name for user in read(place))


def add(place: Place, name: str) -> bool:
    """Let a peer in; False when it is already."""
    found = read(place)
    if any(user.name == name for user in found):
        return False
    _write(place, (*found, User(name, PEER_ROLE)))
    return True


def remove(place: Place, name: str) -> bool:
    """Let a peer in no more; False when it is not."""
    found = read(place)
    if all(user.name != name for user in found):
        return False
    _write(place, (user for user in found if user.name != name))
    return True


def where(place: Place) -> str:
    """How to tell an operator of them."""
    return place.users.where(place.users_name) if place.users else "users that are not ours"


def _write(place: Place, users: Iterable[User]) -> None:
    if place.users is None:
        raise MeshError("the users of this cluster's etcd are not ours to change.")
    document = {"users": msgspec.to_builtins(tuple(users))}
    place.users.put(place.users_name, yaml.safe_dump(document, sort_keys=False).encode())
