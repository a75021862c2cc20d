"""What an error that ended a connection was about, as a sentence."""

from collections.abc import Iterator

from clustermesh.process import describe


def causes(error: BaseException) -> Iterator[BaseException]:
    """The errors that a task group bundled."""
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from causes(part)
    else:
        yield error


def reason_of(error: BaseException) -> str:
    """Every cause once, as an operator should hear it."""
    return "; ".join(dict.fromkeys(map(describe, causes(error))))
