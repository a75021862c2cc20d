"""Logging: lines that a person or a machine can read, and that never hold up the event loop.

    with logs.running(level="info", form="auto") as control:
        log = get_logger()
        log.info("peer connected", cluster="paris", took=0.2)
        control.set_level("debug")            # at run time; ValueError for a level that is none

- ``running(*, level, form, stream=sys.stderr)``: ``form`` is ``json``, ``console`` or ``auto``
  (console on a terminal). Leaving the block writes out what is queued.
- Modules say ``from clustermesh.logs import get_logger`` and ``log = get_logger()``. An event is a
  fixed lower-case phrase, data are keys: cluster, kind, key, reason, took, retry_in ...
- A thread writes the lines. When it cannot keep up (a slow disk, a stopped terminal) lines are
  dropped and their number is told afterwards; nobody waits.
"""

import logging
import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TextIO

_rich = sys.modules.get("rich")
if _rich is None:
    # structlog imports rich for its tracebacks where it finds it: 80 ms, and we show none.
    sys.modules["rich"] = None  # type: ignore[assignment]  # the import system's "not installed"
import structlog  # noqa: E402  # after the lines above

if _rich is None:
    del sys.modules["rich"]

from structlog.typing import EventDict, Processor, WrappedLogger  # noqa: E402  # as above

get_logger = structlog.get_logger

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
FORMS: Final = ("auto", "json", "console")
QUEUE: Final = 10_000  # lines; at some 200 bytes each, 2 MB at most


class Control:
    """The level, changeable while the program runs."""

    def __init__(self, level: str) -> None:
        self.set_level(level)

    @property
    def level(self) -> str:
        """debug, info, warning or error."""
        return self._level

    def set_level(self, level: str) -> None:
        """Lines below ``level`` are dropped from now on."""
        if level not in LEVELS:
            raise ValueError(f"level: expected one of {', '.join(LEVELS)}, found {level!r}")
        self._level = level
        self._least = LEVELS[level]

    def gate(self, _logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        """A processor that drops what is below the level."""
        if LEVELS.get(method, 40) < self._least:
            raise structlog.DropEvent
        return event


class _Writer:
    """Lines to a stream, by a thread of its own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(QUEUE)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def msg(self, line: str) -> None:
        """Queue one line, or count it as dropped."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    debug = info = warning = error = critical = exception = msg

    def close(self) -> None:
        """Write out what is queued, for two seconds at most."""
        try:
            self._lines.put(None, timeout=1)
        except queue.Full:
            return
        self._thread.join(timeout=1)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            dropped, self._dropped = self._dropped, 0
            lost = f"{dropped} lines of the log were dropped\n" if dropped else ""
            try:
                self._stream.write(f"{_printable(line)}\n{lost}")
                if self._lines.empty():
                    self._stream.flush()
            except (OSError, ValueError):
                continue  # the reader of the log is gone; there is nobody left to tell


class _Bridge(logging.Handler):
    """Lines of libraries that use the standard logging, on the same way."""

    def emit(self, record: logging.LogRecord) -> None:
        name = record.levelname.lower()
        level = name if name in LEVELS else "error"
        fault = _fault(record.exc_info[1]) if record.exc_info else {}
        getattr(get_logger(), level)(record.getMessage().strip(), logger=record.name, **fault)


def _fault(error: BaseException | None) -> dict[str, str]:
    """What an unexpected error was and where it was raised, in one line instead of a traceback."""
    if error is None:
        return {}
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code if trace is not None else None
    where = f"{code.co_filename}:{trace.tb_lineno} {code.co_name}" if code and trace else ""
    return {"error": repr(error), "raised": where}


@contextmanager
def running(*, level: str, form: str, stream: TextIO = sys.stderr) -> Iterator[Control]:
    """Set up logging for this process; see the module's text."""
    if form not in FORMS:
        raise ValueError(f"log format: expected one of {', '.join(FORMS)}, found {form!r}")
    control = Control(level)
    writer = _Writer(stream)
    structlog.configure(
        processors=[control.gate, *_rendering(form, stream)],
        logger_factory=lambda *_: writer,
        wrapper_class=structlog.make_filtering_bound_logger(0),
        cache_logger_on_first_use=False,
    )
    bridge = _Bridge(level=logging.WARNING)
    logging.getLogger().addHandler(bridge)
    try:
        yield control
    finally:
        logging.getLogger().removeHandler(bridge)
        writer.close()
        structlog.reset_defaults()


def _rendering(form: str, stream: TextIO) -> list[Processor]:
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
    ]
    if form == "console" or (form == "auto" and stream.isatty()):
        clock = structlog.processors.TimeStamper(fmt="%H:%M:%S.%f", utc=False)
        return [*common, clock, structlog.dev.ConsoleRenderer(colors=stream.isatty())]
    clock = structlog.processors.TimeStamper(fmt="iso", key="time")
    return [*common, clock, structlog.processors.JSONRenderer(serializer=_json)]


def _json(event: EventDict, **_: object) -> str:
    import msgspec

    first = {name: event.pop(name) for name in ("time", "level", "event") if name in event}
    line = {**first, **event}
    try:
        return msgspec.json.encode(line, enc_hook=str).decode()
    except UnicodeEncodeError:  # no line is worth the program
        return msgspec.json.encode({key: _printable(str(line[key])) for key in line}).decode()


def _printable(text: str) -> str:
    """What is no character of Unicode is spelled out."""
    return text.encode(errors="backslashreplace").decode()
