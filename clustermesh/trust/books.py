"""What a host remembers of joining: a piece for each token, and for each cluster that joined."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from clustermesh.places.shelf import Folder, Shelf

if TYPE_CHECKING:
    from clustermesh.places.connection import Connection


class Books(NamedTuple):
    """Neither holds anything by which somebody could join."""

    tokens: Shelf
    peers: Shelf


def on_files(state: Path) -> Books:
    """Below the state directory of the one process that lets guests in."""
    return Books(Folder.made(state / "tokens"), Folder.made(state / "peers"))


def in_secrets(made: "Connection", namespace: str) -> Books:
    """Shared by the replicas, and by the operator's tool."""
    from clustermesh.places import secrets

    return Books(
        secrets.secret(made, namespace, secrets.TOKENS),
        secrets.secret(made, namespace, secrets.PEERS),
    )
