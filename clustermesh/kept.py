"""What an apiserver tells of its etcd: one of these a line. [pure]"""

import msgspec


class Kept(msgspec.Struct, frozen=True, kw_only=True, tag="entry", tag_field="is"):
    """A key and what it holds; None: it is gone. ``revision`` is of its last change."""

    key: str
    value: bytes | None
    revision: int


class End(msgspec.Struct, frozen=True, kw_only=True, tag="end", tag_field="is"):
    """The last line. ``revision`` is the listing's; ``cut``: there may be more; ``error``: why it
    ends early."""

    revision: int
    cut: bool = False
    error: str = ""


Line = Kept | End
