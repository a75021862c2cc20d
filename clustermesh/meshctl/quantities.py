"""Numbers as options take them: what cannot be meant is refused, and what is expected is said."""

import math
from typing import Final

import typer

from clustermesh.settings import in_seconds

SECONDS: Final = "SECONDS"
"""How help calls what ``seconds`` reads."""


def seconds(written: str | float) -> float:
    """``90``, ``1.5`` or ``2m30s``; raises ``typer.BadParameter``."""
    try:
        return number(in_seconds(written) if isinstance(written, str) else written)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def number(written: str | float) -> float:
    """Finite and not negative; raises ``typer.BadParameter``."""
    try:
        found = float(written)
    except ValueError:
        found = math.nan
    if not 0 <= found < math.inf:
        raise typer.BadParameter(f"expected a number from 0 on, found {written!r}")
    return found
