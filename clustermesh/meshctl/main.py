"""The console script: however it ends, it ends with a result or a sentence, and an exit code."""

import io
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from clustermesh.meshctl.errors import Exit
from clustermesh.meshctl.harmless import harmless

DEBUG = "MESHCTL_DEBUG"
SURROGATES = frozenset(map(chr, range(0xDC80, 0xDD00)))
"""What Python puts for bytes that are no UTF-8."""


def main() -> None:
    """Never ends with a traceback (unless MESHCTL_DEBUG is set)."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # what a terminal cannot show is no bug of ours
        sys.stdout.reconfigure(errors="backslashreplace")
    for word in sys.argv[1:]:
        if SURROGATES & set(word):
            _end(f"{word!r} is not text in UTF-8.", Exit.USAGE)
    run(_commands)


def run(commands: Callable[[], None]) -> None:
    """Run the command line; every error becomes a sentence on standard error and an exit code."""
    try:
        commands()
    except KeyboardInterrupt:
        _end("interrupted", Exit.INTERRUPTED)
    except SystemExit as end:
        if end.code == Exit.INTERRUPTED:
            _end("interrupted", Exit.INTERRUPTED)
        raise
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Exit.FAILED)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        _end(f"{error.strerror or error}{where}", Exit.FAILED)
    except Exception as error:  # noqa: BLE001  # the last resort: an operator is owed a sentence
        _unexpected(error)


def _commands() -> None:
    # Imported here, so that Ctrl-C and a broken installation are met by `run` as well.
    import typer

    from clustermesh.errors import MeshError, UsageError
    from clustermesh.lab.errors import LabError
    from clustermesh.meshctl.api import NoAnswer
    from clustermesh.meshctl.cli import app
    from clustermesh.meshctl.context import hoisted
    from clustermesh.meshctl.errors import MeshctlError
    from clustermesh.pki import CertificateError

    # The base of all that typer finds wrong with a command line.
    misused: type[BaseException] = typer.BadParameter.__mro__[1]
    try:
        code = app(args=hoisted(sys.argv[1:]), prog_name="meshctl", standalone_mode=False)
    except misused as error:
        _misused(error)
    except MeshctlError as error:
        _end(str(error), error.code)
    except NoAnswer as error:
        _end(str(error), Exit.UNREACHABLE)
    except UsageError as error:
        _end(str(error), Exit.USAGE)
    except (MeshError, LabError, CertificateError) as error:
        _end(str(error), Exit.FAILED)
    sys.exit(code or Exit.OK)


def _misused(error: Any) -> NoReturn:  # noqa: ANN401  # typer keeps the class to itself
    """What is wrong with the command line; a group of commands alone is asked what it has."""
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stdout.write(f"{error.format_message()}\n")
        sys.exit(Exit.USAGE)
    command = error.ctx.command_path if error.ctx is not None else "meshctl"
    said = " ".join(error.format_message().replace("Value error, ", "").split())
    end = "" if said.endswith(("?", ".")) else "."
    _end(f"{said[:1].lower()}{said[1:]}{end} See `{command} --help`.", Exit.USAGE)


def _unexpected(error: Exception) -> None:
    if os.environ.get(DEBUG):
        raise error
    said = " ".join(str(error).split())
    _end(
        f"this is a bug in meshctl ({type(error).__name__}: {said});"
        f" please report it with what {DEBUG}=1 shows",
        Exit.FAILED,
    )


def _end(text: str, code: Exit) -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not change the exit code
    sys.stderr.write(f"meshctl: {harmless(text)}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
