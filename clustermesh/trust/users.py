"""Who may read a cluster's etcd, as its file or ConfigMap of users says (contract kvstore 7)."""

from collections.abc import Callable, Iterable
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
NOTED: Final = "named-by-the-chart"
"""Piece beside the list: whom the chart has named, a line each."""

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


def begin(place: Place, names: Iterable[str]) -> None:
    """Make the list when there is none, and let in whom the chart names: each once, so that who is
    revoked stays out until the chart has named it anew. Raises ``MeshError``.
    """
    if place.users is None:
        return
    noted = place.users.read(NOTED)
    wanted = tuple(dict.fromkeys(names))
    fresh = [User(name, PEER_ROLE) for name in wanted if name not in noted.decode().split()]

    def begun(found: Users) -> Users:
        known = {user.name for user in found}
        return (*found, *(user for user in fresh if user.name not in known))

    _change(place, begun, even_if_empty=True)
    note = "".join(f"{name}\n" for name in wanted).encode()
    if note != noted:
        place.users.swap(NOTED, noted, note)


def where(place: Place) -> str:
    """How to tell an operator of them."""
    return place.users.where(place.users_name) if place.users else "users that are not ours"


def _change(
    place: Place, changed: Callable[[Users], Users], *, even_if_empty: bool = False
) -> bool:
    """Written only on top of the list that was read, so that nobody's change is undone by another's
    who read before it. Raises ``Taken`` when others never cease.
    """
    if place.users is None:
        raise MeshError("the users of this cluster's etcd are not ours to change.")
    for _ in range(TRIES):
        held = place.users.read(place.users_name)
        wanted = changed(found := _parsed(place, held))
        if wanted == found and (held or not even_if_empty):
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
