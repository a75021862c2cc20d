"""May it be believed that a key is gone? Not of everything that stops being there."""

import asyncio
from typing import Protocol, runtime_checkable

NEVER = 1 << 63
"""Beyond any revision."""


class Gate(Protocol):
    """May deletions be believed now?"""

    def open(self) -> bool: ...

    async def wait(self) -> None:
        """Return when it is open."""
        ...


@runtime_checkable
class Dated(Protocol):
    """A gate that knows which past deletions not to believe, although it is open again."""

    def since(self) -> int:
        """The revision of the sign of life that opened it; 0 when it was never closed."""
        ...


@runtime_checkable
class Proving(Protocol):
    """A gate that is open for whoever is not known to be dead, and knows of whom more is known.

    Deletions that are watched are believed of the former; what a list lacks, of the latter only.
    """

    def proven(self) -> bool:
        """Is it known that the writer lives?"""
        ...

    async def prove(self) -> None:
        """Return when it is."""
        ...


class Belief:
    """What a follower goes by: its gate, and the doubt that another past leaves for a while."""

    def __init__(self, gate: Gate | None, *, doubt: float) -> None:
        self._gate = gate
        self._dated: Dated | None = gate if isinstance(gate, Dated) else None  # slow to find out
        self._proving: Proving | None = gate if isinstance(gate, Proving) else None
        self._doubt = doubt
        self._doubt_until = 0.0

    def begin_doubt(self) -> None:
        """Another past answers: its writers need time to notice, and to write what it lacks."""
        self._doubt_until = asyncio.get_running_loop().time() + self._doubt

    def holds(self) -> bool:
        """Is what is seen to be deleted gone?"""
        now = asyncio.get_running_loop().time()
        return now >= self._doubt_until and (self._gate is None or self._gate.open())

    def settles(self) -> bool:
        """Is what a full list lacks gone?"""
        return self.holds() and (self._proving is None or self._proving.proven())

    def since(self) -> int:
        """From which revision on a watched deletion is to be believed.

        What happened while the gate was closed may be read when it is open again: keys of a writer
        that could not renew its leases, and that has written them again since.
        """
        if not self.holds():
            return NEVER
        return self._dated.since() if self._dated else 0

    async def wait(self) -> None:
        """Return when it settles."""
        while not self.settles():
            now = asyncio.get_running_loop().time()
            await asyncio.sleep(max(0.0, self._doubt_until - now))
            if self._gate is not None:
                await self._gate.wait()
            if self._proving is not None:
                await self._proving.prove()
