"""Board: what of a process is well and what is not, each with its reason and since when.

    board = Board(told=log_it)         # told(condition) when something turns well or stops being it
    board.require("etcd")              # ready only while it is well
    board.require_once("source")       # ready as soon as it has been well once, and from then on
    board.ok("etcd")
    board.degraded("etcd", "etcd at 127.0.0.1:2379 does not answer; trying again in 4 s")
    board.drop("remote/paris")         # no longer of interest
    report = board.reporter("remote/paris")     # report("sentence") degrades, report(None): well
    board.ready -> bool
    board.trouble() -> tuple[str, ...]          # the sentences of all that is not well
    board.snapshot() -> tuple[Condition, ...]

A name that nobody requires shows in ``trouble()`` while it is degraded and does not touch
readiness: a peer's outage is not ours. Owned by the event loop's thread.
"""

import time
from collections.abc import Callable
from typing import Final

import msgspec

NOT_YET: Final = "not ready yet"


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """How one thing is. ``since`` is Unix seconds; ``reason`` is a sentence, empty when well."""

    name: str
    ok: bool
    reason: str
    since: float


class Board:
    """Conditions by name."""

    def __init__(
        self,
        *,
        told: Callable[[Condition], None] = lambda _: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._told = told
        self._now = now
        self._conditions: dict[str, Condition] = {}
        self._required: set[str] = set()
        self._awaited: set[str] = set()

    def require(self, name: str) -> None:
        """Not ready unless ``name`` is well now."""
        self._required.add(name)
        self._begin(name)

    def require_once(self, name: str) -> None:
        """Not ready until ``name`` has been well once."""
        self._awaited.add(name)
        self._begin(name)

    def ok(self, name: str) -> None:
        """``name`` is well."""
        self._awaited.discard(name)
        self._set(name, ok=True, reason="")

    def degraded(self, name: str, reason: str) -> None:
        """``name`` is not well; ``reason`` is a full sentence for an operator."""
        self._set(name, ok=False, reason=reason)

    def drop(self, name: str) -> None:
        """Forget ``name``."""
        self._conditions.pop(name, None)
        self._required.discard(name)
        self._awaited.discard(name)

    def reporter(self, name: str) -> Callable[[str | None], None]:
        """A function that takes a reason to degrade ``name``, or None for well."""

        def report(reason: str | None) -> None:
            if reason is None:
                self.ok(name)
            else:
                self.degraded(name, reason)

        return report

    @property
    def ready(self) -> bool:
        """Whether everything required is well."""
        return not self._awaited and all(self._conditions[name].ok for name in self._required)

    def trouble(self) -> tuple[str, ...]:
        """The reasons of all that is not well, by name."""
        return tuple(f"{it.name}: {it.reason}" for it in self.snapshot() if not it.ok)

    def snapshot(self) -> tuple[Condition, ...]:
        """All conditions, by name."""
        return tuple(self._conditions[name] for name in sorted(self._conditions))

    def _begin(self, name: str) -> None:
        if name not in self._conditions:
            self._conditions[name] = Condition(
                name=name, ok=False, reason=NOT_YET, since=self._now()
            )

    def _set(self, name: str, *, ok: bool, reason: str) -> None:
        last = self._conditions.get(name)
        if last is not None and (last.ok, last.reason) == (ok, reason):
            return
        since = last.since if last is not None and last.ok == ok else self._now()
        fresh = Condition(name=name, ok=ok, reason=reason, since=since)
        self._conditions[name] = fresh
        if last is None or last.ok != ok or last.reason == NOT_YET:
            self._told(fresh)
