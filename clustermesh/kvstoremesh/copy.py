"""One kind of one cluster: every key of the source under its new name, values untouched."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from clustermesh.kvstoremesh.places import Route
from kvstore.events import Event, Put, Synced


class Output(Protocol):
    """Where copies go (``kvstore.publish.Publisher``)."""

    def put(self, key: str, value: bytes) -> None:
        """Keep the key at this value."""
        ...

    def remove(self, key: str) -> None:
        """Let the key go."""
        ...


class TooMany(ValueError):
    """The source publishes more keys than one cluster may have; the text is a sentence."""


class Copy:
    """The owner of the keys under one prefix of the cache. It outlives connections.

    ``known`` is what there should be, ``strangers`` counts what the source sent and had no
    business to send.
    """

    def __init__(self, target: str, output: Output, *, limit: int) -> None:
        self.known: set[str] = set()
        self.strangers = 0
        self.events = 0
        self._target = target
        self._output = output
        self._limit = limit
        self._stale: set[str] | None = None

    def adopt(self, keys: Iterable[str]) -> None:
        """These copies are there already, made by an earlier life."""
        self.known.update(key for key in keys if key.startswith(self._target))

    def begin(self) -> None:
        """A full list comes; what it does not repeat is gone."""
        self._stale = set(self.known)

    def forget(self) -> None:
        """Let go of every copy."""
        for key in self.known:
            self._output.remove(key)
        self.known.clear()
        self._stale = None

    def take(self, route: Route, events: Sequence[Event], synced: Callable[[], None]) -> None:
        """Copy what happened; ``synced`` is called when a full list is complete.

        Raises ``TooMany``.
        """
        source, target, known, put = route.source, route.target, self.known, self._output.put
        cut, stale = len(source), self._stale
        self.events += len(events)
        for event in events:
            if isinstance(event, Synced):
                self._sweep()
                stale = None
                synced()
                continue
            key = event.key
            if not key.startswith(source) or len(key) == cut:
                self.strangers += 1
                continue
            key = target + key[cut:]
            if isinstance(event, Put):
                if key not in known:
                    self._room(route)
                    known.add(key)
                put(key, event.value)
            else:
                known.discard(key)
                self._output.remove(key)
            if stale:
                stale.discard(key)

    def _room(self, route: Route) -> None:
        if len(self.known) >= self._limit:
            raise TooMany(
                f"it publishes more than {self._limit} keys under {route.source}: nothing is copied"
                " until there are fewer, or --max-keys-per-kind is raised"
            )

    def _sweep(self) -> None:
        for key in self._stale or ():
            self.known.discard(key)
            self._output.remove(key)
        self._stale = None
