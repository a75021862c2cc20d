"""What should be in a store, what is, and what is on its way there: a publisher's books."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from kvstore.client import DeleteOp, Entry, PutOp

Op = PutOp | DeleteOp


class _Unknown:
    """What the store holds after a write that failed half way: the old value, the new one, or
    nothing.
    """


_UNKNOWN = _Unknown()


class Wishes:
    """For each key the newest wish; None, here and below, means: no such key.

    A key is *written* (the store holds this), *pending* (it should hold that) or *in flight* (it is
    being told). A wish that equals what the store holds, or is being told, is none.
    """

    def __init__(self) -> None:
        self._written: dict[str, bytes | _Unknown] = {}
        self._pending: OrderedDict[str, bytes | None] = OrderedDict()
        """In the order of the first wish. A plain dict takes ever longer to find its first key when
        keys are taken from its front."""
        self._flight: dict[str, bytes | None] = {}
        self._canaries: set[str] = set()
        self._refused: dict[str, bytes] = {}

    def __bool__(self) -> bool:
        return bool(self._pending)

    def __contains__(self, key: str) -> bool:
        """Is the key wanted?"""
        for layer in (self._pending, self._flight):
            if key in layer:
                return layer[key] is not None
        return key in self._written

    def queued(self) -> Collection[str]:
        """Keys whose newest wish the store has not taken yet."""
        return self._pending.keys() | self._flight.keys()

    @property
    def refused(self) -> Sequence[str]:
        """Keys whose newest value the store will never take."""
        return tuple(self._refused)

    def written(self, among: Collection[str]) -> list[str]:
        """Which of these the store holds, or may hold, in the order of their first writing."""
        return [key for key in self._written if key in among]

    def holds(self, entry: Entry) -> bool:
        """Is this what we wrote?"""
        return self._written.get(entry.key) == entry.value

    def wish(self, key: str, value: bytes | None) -> None:
        """From now on the key should have this value."""
        if self._refused:
            if value is not None and self._refused.get(key) == value:
                return
            self._refused.pop(key, None)
        if value is None:
            self._canaries.discard(key)
        holds = self._flight[key] if key in self._flight else self._written.get(key)
        if value == holds:
            self._pending.pop(key, None)
        else:
            self._pending[key] = value

    def canary(self, key: str, value: bytes) -> None:
        """The same, to be written after everything that was wished for before it."""
        self._canaries.add(key)
        self._pending.pop(key, None)
        self.wish(key, value)

    def adopt(self, held: Mapping[str, bytes]) -> None:
        """The store holds this already, and it is wanted."""
        self._written = {**held}

    def again(self, keys: Iterable[str]) -> None:
        """Write these once more, canaries last."""
        for key in keys:
            value = self._written.get(key, _UNKNOWN)
            if not isinstance(value, _Unknown):
                self._pending.setdefault(key, value)
                self._written[key] = _UNKNOWN
        self._canaries_last()

    def again_but(self, intact: Collection[str]) -> None:
        """Write everything once more that is not intact."""
        self.again([key for key in self._written if key not in intact])

    def drop(self, stranger: str) -> None:
        """Something that is in the store and not wanted."""
        self._written[stranger] = _UNKNOWN
        self._pending[stranger] = None

    def first(self) -> str:
        """The key of the oldest wish."""
        return next(iter(self._pending))

    def depart(self, most: int, room: int, lease_of: Callable[[str], int | None]) -> list[Op]:
        """The oldest wishes, in flight from now on: at most so many, and so many bytes unless one
        alone is larger. They end before a key without a lease.
        """
        ops: list[Op] = []
        for key, value in self._pending.items():
            room -= len(key) + (len(value) if value is not None else 0)
            if len(ops) == most or (room < 0 and ops):
                break
            if value is None:
                ops.append(DeleteOp(key))
            elif (lease := lease_of(key)) is not None:
                ops.append(PutOp(key, value, lease))
            else:
                break
        pending, flight = self._pending, self._flight
        for op in ops:
            flight[op.key] = pending.pop(op.key)
        return ops

    def arrived(self, ops: Iterable[Op]) -> list[str]:
        """The store has taken these; the keys that are not there any more."""
        written, flight, gone = self._written, self._flight, []
        for op in ops:
            key = op.key
            value = flight.pop(key)
            if value is None:
                written.pop(key, None)
                gone.append(key)
            else:
                written[key] = value
        return gone

    def refuse(self, key: str) -> None:
        """The store will never take it: what it holds stays, until something else is wished for."""
        value = self._flight.pop(key)
        if value is not None and key not in self._pending:
            self._refused[key] = value

    def lost_sight(self) -> None:
        """Nobody knows whether what is in flight arrived: back to the head of the queue with it."""
        for key in self._flight:
            self._written[key] = _UNKNOWN
        for key in reversed(self._flight):
            self._pending.setdefault(key, self._flight[key])
            self._pending.move_to_end(key, last=False)
        self._flight = {}
        self._canaries_last()

    def _canaries_last(self) -> None:
        for key in self._canaries:
            if key in self._pending:
                self._pending.move_to_end(key)
