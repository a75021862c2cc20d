"""Who may read a cluster's etcd, as its file or ConfigMap of users says (contract kvstore 7)."""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

import msgspec
import yaml

from clustermesh.errors import MeshError
from clustermesh.places.place import Place
from clustermesh.places.shelf import Taken
from kvstore.config import ConfigError
from kvstore.users import PEER_ROLE, User, parse_users

TRIES: Final = 10
"""Changes that meet somebody else's, each made to what is there by then."""

Users = tuple[User, ...]


def read(place: Place) -> Users:
    """Everybody named; nobody where the users are not ours to change. Raises ``MeshError``."""
    return () if place.users is None else _parsed(place, place.users.read(place.users_name))


def has(place: Place, name: str) -> bool:
    """Whether a peer is let in."""
    return any(user.name == name for user in read(place))


def add(place: Place, name: str) -> bool:
    """Let a peer in; False when it is already. Raises ``MeshError``."""

    def added(found: Users) -> Users:
        known = any(user.name == name for user in found)
        return found if known else (*found, User(name, PEER_ROLE))

    return _change(place, added)


def remove(place: Place, name: str) -> bool:
    """Let a peer in no more; False when it is not. Raises ``MeshError``."""
    return _change(place, lambda found: tuple(user for user in found if user.name != name))


def where(place: Place) -> str:
    """How to tell an operator of them."""
    return place.users.where(place.users_name) if place.users else "users that are not ours"


def _change(place: Place, changed: Callable[[Users], Users]) -> bool:
    """Written only on top of the list that was read, so that nobody's change is undone by another's
    who read before it. Raises ``Taken`` when others never cease.
    """
    if place.users is None:
        raise MeshError("the users of this cluster's etcd are not ours to change.")
    for _ in range(TRIES):
        held = place.users.read(place.users_name)
        wanted = changed(found := _parsed(place, held))
        if wanted == found:
            return False
        with suppress(Taken):
            place.users.swap(place.users_name, held, _document(wanted))
            return True
    raise Taken(f"{where(place)} is changed by others all the time: try again.")


def _parsed(place: Place, held: bytes) -> Users:
    try:
        return parse_users(held)
    except ConfigError as error:
        raise MeshError(f"{where(place)}: {error}.") from None


def _document(users: Users) -> bytes:
    return yaml.safe_dump({"users": msgspec.to_builtins(users)}, sort_keys=False).encode()
