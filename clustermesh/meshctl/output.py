"""How results reach the operator: plain columns, rich tables on request, or JSON."""

import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from enum import StrEnum
from typing import Annotated, Any, Self

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from clustermesh.meshctl.harmless import harmless

COLUMN_WIDTH = 5
PADDING = 3


class Format(StrEnum):
    """What ``-o`` takes."""

    TABLE = "table"
    JSON = "json"


Output = Annotated[
    Format,
    typer.Option("--output", "-o", metavar="FORMAT", help="table for people, json for programs."),
]


def say(text: str) -> None:
    """Print a line of plain text."""
    sys.stdout.write(f"{harmless(text)}\n")


def complain(text: str) -> None:
    """Print a line for the operator that is not part of the result."""
    sys.stderr.write(f"meshctl: {harmless(text)}\n")


def show_json(value: object) -> None:
    """Any value msgspec can encode, indented."""
    say(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def tell(value: object, text: str, output: Format) -> None:
    """A result, as JSON or as the text that says the same."""
    if output is Format.JSON:
        show_json(value)
    else:
        say(text)


def columns(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Text in columns at least 5 wide and 3 apart (contract datapath 7), a line per row."""
    lines = [list(header), *([*row] for row in rows)]
    widths = [
        max(COLUMN_WIDTH - PADDING, *(len(line[at]) for line in lines)) + PADDING
        for at in range(len(header))
    ]
    return "\n".join(
        "".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


class _Table(Table):
    """Its cells are ``harmless``; style is markup."""

    def add_row(self, *cells: Any, **how: Any) -> None:  # noqa: ANN401  # the base class's
        super().add_row(*(harmless(it) if isinstance(it, str) else it for it in cells), **how)


def table(*header: str, title: str = "") -> Table:
    """An empty table in the one style there is."""
    made = _Table(box=None, pad_edge=False, title=title or None, title_justify="left")
    for name in header:
        made.add_column(name, overflow="fold")
    return made


def console() -> Console:
    """Standard output; wide when it is not a terminal, so that pipes get whole lines."""
    return Console(width=None if sys.stdout.isatty() else 200, highlight=False)


def duration(seconds: float | None) -> str:
    """``12s``, ``3m05s``, ``2h10m``; ``-`` for None."""
    if seconds is None:
        return "-"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def shortened(text: str, room: int) -> str:
    """At most so many characters, so that what is rewritten in place stays on one line."""
    return text if len(text) <= room else f"{text[: max(0, room - 3)]}..."


class Progress:
    """Lines of progress on standard error: rewritten in place on a terminal, else one by one."""

    def __init__(self) -> None:
        self._status = Console(stderr=True, highlight=False).status("")
        self._terminal = sys.stderr.isatty()
        self._last = ""

    def __enter__(self) -> Self:
        if self._terminal:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    def say(self, text: str) -> None:
        """Print a line of the result while progress is being shown."""
        if self._terminal:
            self._status.stop()
        say(text)
        sys.stdout.flush()
        if self._terminal:
            self._status.start()

    def __call__(self, text: str) -> None:
        with suppress(OSError):  # nobody reads on: no reason to leave work half done
            if self._terminal:
                self._status.update(shortened(f"{text} ...", self._status.console.width - 4))
            elif text != self._last:
                sys.stderr.write(f"{text}\n")
                sys.stderr.flush()
        self._last = text
