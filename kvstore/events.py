"""What happens to keys: values that every store yields and every follower consumes."""

import msgspec


def shown(key: str) -> str:
    """A key for people, logs and JSON, which have no word for bytes that are not UTF-8."""
    return key.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class Put(msgspec.Struct, frozen=True, gc=False):
    """A key has this value since this revision, and hangs on this lease (0: on none).

    Keys are etcd's bytes decoded as UTF-8 with ``surrogateescape``: any key survives both ways.
    """

    key: str
    value: bytes
    revision: int
    lease: int = 0


class Delete(msgspec.Struct, frozen=True, gc=False):
    """A key is gone; ``revision`` is where that was learned."""

    key: str
    revision: int


class Synced(msgspec.Struct, frozen=True, gc=False):
    """Everything that was true at ``revision`` has been told."""

    revision: int


Change = Put | Delete
Event = Put | Delete | Synced
