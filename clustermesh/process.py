"""Running a process: signals stop it in seconds, and whatever goes wrong is one sentence.

    def main() -> None:
        sys.exit(process.run(lambda: serve(sys.argv[1:]), program="clustermesh-agent"))

- ``run(main, *, program, grace=5.0) -> int`` runs the coroutine that ``main()`` returns and gives
  the exit code. SIGTERM and SIGINT cancel it once; it has ``grace`` seconds to end, and a second
  signal ends the process at once.
- ``Fault(sentence, *, code=1)`` is what the operator has to hear: raise it from anywhere.
- ``describe(error) -> str`` is the sentence for any error; ``code_of(error) -> int``.

Exit codes: 0 stopped as asked; 1 cannot do its work (``Fault``, store or operating system); 2 wrong
settings; 70 a bug of ours, with its place in the source; 130 interrupted twice.
"""

import asyncio
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine, Iterator
from typing import Final

from clustermesh.settings import SettingsError
from kvstore.client import StoreError

FAULT: Final = 1
USAGE: Final = 2
BUG: Final = 70
INTERRUPTED: Final = 130


class Fault(Exception):
    """The process cannot do its work; the text is one sentence and says the way out."""

    def __init__(self, sentence: str, *, code: int = FAULT) -> None:
        super().__init__(sentence)
        self.code = code


def run(
    main: Callable[[], Coroutine[None, None, None]], *, program: str, grace: float = 5.0
) -> int:
    """Run to the end; see the module's text."""
    try:
        asyncio.run(_until_signal(main, program, grace))
    except asyncio.CancelledError:
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    except BaseException as error:  # noqa: BLE001  # the last place that can turn it into a sentence
        causes = list(_leaves(error))
        for sentence in dict.fromkeys(map(describe, causes)):
            _say(f"{program}: {sentence}")
        return max(map(code_of, causes))
    return 0


def describe(error: BaseException) -> str:
    """What an operator should hear of ``error``: one sentence, and no traceback."""
    if isinstance(error, Fault | StoreError | ValueError) and str(error) and _is_ours(error):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"internal error{place}: {type(error).__name__}: {error}; please report this"


def code_of(error: BaseException) -> int:
    """The exit code that ``error`` ends the process with."""
    if isinstance(error, Fault):
        return error.code
    if isinstance(error, SettingsError):
        return USAGE
    if isinstance(error, OSError) or _is_ours(error):
        return FAULT
    return BUG


def _is_ours(error: BaseException) -> bool:
    """Whether the text was written for an operator."""
    module = type(error).__module__.partition(".")[0]
    return module in {"agent", "bpf", "clustermesh", "kvstore"}


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error


async def _until_signal(
    main: Callable[[], Coroutine[None, None, None]], program: str, grace: float
) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  # a coroutine always runs in a task
    asked = False

    def stop() -> None:
        nonlocal asked
        if asked:
            os._exit(INTERRUPTED)
        asked = True
        _deadline(grace, program)
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await main()


def _deadline(grace: float, program: str) -> None:
    """End the process when it has not ended by itself; a thread, as the loop may be stuck."""

    def end() -> None:
        _say(f"{program}: did not stop within {grace:g} s of the signal; ended without finishing")
        os._exit(FAULT)

    timer = threading.Timer(grace, end)
    timer.daemon = True
    timer.start()


def _say(sentence: str) -> None:
    sys.stderr.write(sentence + "\n")
    sys.stderr.flush()
