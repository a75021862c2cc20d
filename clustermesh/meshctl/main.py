"""The console script: however it ends, it ends with a result or a sentence, and an exit code."""

import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from clustermesh.meshctl.errors import Exit

DEBUG = "MESHCTL_DEBUG"


def main() -> None:
    """Never ends with a traceback (unless MESHCTL_DEBUG is set)."""
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
    from clustermesh.errors import MeshError, UsageError
    from clustermesh.lab.errors import LabError
    from clustermesh.meshctl.api import NoAnswer
    from clustermesh.meshctl.cli import app
    from clustermesh.meshctl.context import hoisted
    from clustermesh.meshctl.errors import MeshctlError
    from clustermesh.pki import CertificateError

    try:
        app(args=hoisted(sys.argv[1:]), prog_name="meshctl")
    except MeshctlError as error:
        _end(str(error), error.code)
    except NoAnswer as error:
        _end(str(error), Exit.UNREACHABLE)
    except UsageError as error:
        _end(str(error), Exit.USAGE)
    except (MeshError, LabError, CertificateError) as error:
        _end(str(error), Exit.FAILED)


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
    sys.stderr.write(f"meshctl: {text}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
