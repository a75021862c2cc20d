"""What the agent asks of the Python interpreter that runs it."""

import gc
import sys
from typing import Final

TURN: Final = 0.001
"""Seconds. A thread that compares routes or writes tables lets the event loop go on after this
long, not after the usual 5 ms: each of the loop's system calls would have to wait for that."""


def prepare() -> None:
    """Short turns between threads, and no collection while the first lists are read: it would walk
    every fact again and again.

    Facts are values without cycles; reference counts free them.
    """
    sys.setswitchinterval(TURN)
    gc.set_threshold(50_000, 20, 100)
    gc.freeze()
    gc.disable()


def settled() -> None:
    """The first lists are read: what is there now is left alone, what comes is collected."""
    gc.collect()
    gc.freeze()
    gc.enable()
