"""The command line: what was typed, in; one result or one sentence, out."""

import os
import sys

import typer

from clustermesh.lab.errors import LabError
from clustermesh.meshctl import bpf, connect, lab, lists, status
from clustermesh.meshctl.errors import Exit, MeshctlError
from clustermesh.meshctl.output import Format, Output, complain, say, show_json
from clustermesh.pki import CertificateError
from clustermesh.version import VERSION

DEBUG = "MESHCTL_DEBUG"

EPILOG = (
    "Exit codes: 0 done; 1 failed; 2 wrong usage; 3 not ready or not in time;"
    " 4 an agent or apiserver does not answer; 130 interrupted."
)

app = typer.Typer(
    name="meshctl",
    help="Connect clusters into one mesh, and see what it does.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("connect")(connect.connect)
app.command("disconnect")(connect.disconnect)
app.command("status")(status.status)
app.add_typer(lists.service_app, name="service")
app.add_typer(lists.node_app, name="node")
app.add_typer(lists.identity_app, name="identity")
app.add_typer(bpf.app, name="bpf")
app.add_typer(lab.app, name="lab")


@app.command()
def version(output: Output = Format.TABLE) -> None:
    """Say which release this is."""
    if output is Format.JSON:
        show_json({"version": VERSION})
    else:
        say(f"meshctl {VERSION}")


def main() -> None:
    """The console script. Never ends with a traceback (unless MESHCTL_DEBUG is set)."""
    try:
        app()
    except MeshctlError as error:
        _end(str(error), error.code)
    except (LabError, CertificateError) as error:
        _end(str(error), Exit.FAILED)
    except KeyboardInterrupt:
        _end("interrupted", Exit.INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Exit.FAILED)
    except OSError as error:
        _end(f"{error.strerror or error}: {error.filename or 'no file'}", Exit.FAILED)
    except Exception as error:  # the last resort: an operator is owed a sentence
        if os.environ.get(DEBUG):
            raise
        said = " ".join(str(error).split())
        _end(
            f"this is a bug in meshctl ({type(error).__name__}: {said});"
            f" please report it with what {DEBUG}=1 shows",
            Exit.FAILED,
        )


def _end(text: str, code: Exit) -> None:
    complain(text)
    sys.exit(code)


if __name__ == "__main__":
    main()
