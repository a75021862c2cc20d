"""What an audit of a node's maps found, as values: the agent tells them, meshctl shows them."""

from typing import Final

import msgspec

MISSING: Final = "missing"
EXTRA: Final = "extra"
WRONG: Final = "wrong"


class Difference(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", order=True):
    """One entry of a map that is not as the etcds say. ``found`` is empty for a missing one."""

    map: str
    kind: str
    """``missing``, ``extra`` or ``wrong``."""
    key: str
    expected: str = ""
    found: str = ""
    service: str = ""
    """``namespace/name`` of the service that it concerns."""

    def sentence(self) -> str:
        """For an operator."""
        what = f"{self.map}: {self.key}"
        if self.kind == MISSING:
            return f"{what} is missing; expected {self.expected}"
        if self.kind == EXTRA:
            return f"{what} should not be there: {self.found}"
        return f"{what} is {self.found}; expected {self.expected}"


class AuditReport(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """GET /v1/audit of an agent.

    ``revisions``: by cluster and kind, the etcd revision that was read. ``settled``: differences
    that were gone when everything was read again, changes on their way. ``unaudited``: what could
    not be told, a sentence each. ``mended``: entries that a repair wrote or removed.
    """

    node: str
    cluster: str
    at: float
    """Unix seconds at the end."""
    took: float
    rounds: int
    revisions: dict[str, dict[str, int]]
    entries: dict[str, int]
    """By map: entries that were compared."""
    differences: tuple[Difference, ...] = ()
    settled: int = 0
    unaudited: tuple[str, ...] = ()
    mended: int = 0
