"""What the agent asks of the Python interpreter that runs it."""

import gc
import sys
from typing import Final

TURN: Final = 0.001
"""Seconds. A thread that compares routes or writes tables lets the event loop go on after this
long, not after the usual 5 ms: each of the loop's system calls would have to wait for that."""
YOUNG: Final = 50_000
"""Objects that are new since the last collection: to walk them takes some 5 ms."""
ROUNDS: Final = 5
"""After so many collections of new objects those that are left are walked once more."""
NEVER: Final = 1_000_000_000


def prepare() -> None:
    """Short turns between threads, and no stop of the event loop for long: what is there is never
    walked again, and of what comes only the newest.

    Facts are values without cycles; reference counts free them. A cycle that outlives the
    collections of its youth and ends later stays: at most what was alive when the agent grew.
    """
    sys.setswitchinterval(TURN)
    gc.set_threshold(YOUNG, NEVER, NEVER)  # the first lists are long: everything is walked once
    gc.freeze()
    gc.callbacks.append(_leave_alone)


def settled() -> None:
    """The first lists are read: what is there now is left alone."""
    gc.freeze()
    gc.set_threshold(YOUNG, ROUNDS, NEVER)


def _leave_alone(phase: str, info: dict[str, int]) -> None:
    """What has been walked twice is not walked again."""
    if phase == "stop" and info["generation"] > 0:
        gc.freeze()
