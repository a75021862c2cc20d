"""Small writes of many writers in few transactions: at once when idle, together when busy."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from kvstore.client import (
    Conflict,
    DeleteOp,
    DeletePrefixOp,
    PutOp,
    Refused,
    StoreError,
    Unavailable,
    WriteOp,
)

Commit = Callable[[Sequence[WriteOp]], Awaitable[int]]

SMALL = 32
"""Operations. What is larger fills a transaction by itself."""
MOST = 128
ROOM = 1 << 20
"""Operations and bytes of a transaction (contract kvstore 5.2)."""


class _Part:
    """What one writer wants written, and what became of it."""

    __slots__ = ("alone", "gone", "ops", "outcome", "size")

    def __init__(self, ops: Sequence[WriteOp]) -> None:
        self.ops = ops
        self.size = sum(_size(op) for op in ops)
        self.alone = False
        self.gone = False
        """Its writer was stopped: nobody waits for an outcome."""
        self.outcome: int | StoreError | None = None


class Grouping:
    """One small transaction is under way at a time; what is wanted meanwhile goes with the next.

    Writers write distinct keys. A transaction is done or not done as a whole: where the store
    refuses one of several writers' together, each is tried by itself, so that nobody hears of
    another's mistake.
    """

    def __init__(self, commit: Commit) -> None:
        self._commit = commit
        self._waiting: deque[_Part] = deque()
        self._turn = asyncio.Lock()

    async def commit(self, ops: Sequence[WriteOp]) -> int:
        """The revision at which they were written, as ``Writer.commit``."""
        if len(ops) > SMALL:
            return await self._commit(ops)
        part = _Part(ops)
        self._waiting.append(part)
        try:
            while part.outcome is None:
                async with self._turn:
                    if part.outcome is None:
                        await self._write(self._next(part))
        finally:
            part.gone = True
            if part in self._waiting:
                self._waiting.remove(part)
        if isinstance(part.outcome, StoreError):
            raise part.outcome
        return part.outcome

    def _next(self, first: _Part) -> list[_Part]:
        """This one, and of those that wait what fits beside it."""
        self._waiting.remove(first)
        taken, count, size = [first], len(first.ops), first.size
        while not first.alone and self._waiting and not self._waiting[0].alone:
            part = self._waiting[0]
            count, size = count + len(part.ops), size + part.size
            if count > MOST or size > ROOM:
                break
            taken.append(self._waiting.popleft())
        return taken

    async def _write(self, parts: Sequence[_Part]) -> None:
        """All of them in one transaction; afterwards each has an outcome, or is to go alone."""
        lost: StoreError = Unavailable("who wrote it along with others was stopped")
        try:
            outcome: int | StoreError = await self._commit([op for it in parts for op in it.ops])
        except (Conflict, Refused) as error:
            if len(parts) > 1:
                for part in parts:
                    part.alone = True
                self._waiting.extendleft(part for part in reversed(parts) if not part.gone)
                return
            outcome = error
        except StoreError as error:
            outcome = error
        except BaseException:
            for part in parts:
                part.outcome = lost
            raise
        for part in parts:
            part.outcome = outcome


def _size(op: WriteOp) -> int:
    match op:
        case PutOp(key, value):
            return len(key) + len(value)
        case DeleteOp(key):
            return len(key)
        case DeletePrefixOp(prefix):
            return len(prefix)
