"""The tree of commands; each group is a module."""

import os
from typing import Annotated

import typer

from clustermesh.meshctl import (
    audit,
    bpf,
    ca,
    connect,
    explain,
    join,
    kvstore,
    lab,
    lists,
    monitor,
    plan,
    revoke,
    rotate,
    status,
    token,
    trace,
    troubleshoot,
    verify,
)
from clustermesh.meshctl.context import CHOSEN, NAMESPACE, Chosen, MeshOption
from clustermesh.meshctl.output import Format, Output, say, show_json
from clustermesh.meshctl.sysdump.command import sysdump
from clustermesh.version import VERSION

EPILOG = (
    "Exit codes: 0 done; 1 failed; 2 wrong usage; 3 not ready or not in time;"
    " 4 an agent, apiserver or API server does not answer; 130 interrupted."
)

app = typer.Typer(
    name="meshctl",
    help="Connect clusters into one mesh, and see what it does.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("connect")(connect.connect)
app.command("disconnect")(connect.disconnect)
app.command("plan")(plan.plan)
app.command("status")(status.status)
app.command("trace")(trace.trace)
app.command("verify")(verify.verify)
app.command("sysdump")(sysdump)
app.command("troubleshoot")(troubleshoot.troubleshoot)
app.command("monitor")(monitor.monitor)
app.command("audit")(audit.audit)
app.add_typer(explain.app, name="explain")
app.add_typer(explain.app, name="describe", help="The same as explain.")
app.add_typer(lists.service_app, name="service")
app.add_typer(lists.node_app, name="node")
app.add_typer(lists.identity_app, name="identity")
app.add_typer(lists.endpoint_app, name="endpoint")
app.add_typer(kvstore.app, name="kvstore")
app.add_typer(bpf.app, name="bpf")
ca.app.command("revoke")(revoke.revoke)
ca.app.command("rotate")(rotate.rotate)
app.add_typer(ca.app, name="ca")
app.add_typer(token.app, name="token")
app.command("join")(join.join)
app.add_typer(lab.app, name="lab")


def told(asked: bool) -> None:  # noqa: FBT001  # typer calls it with the flag
    """``--version``, as the other programs have it."""
    if asked:
        say(f"meshctl {VERSION}")
        raise typer.Exit


@app.callback()
def everywhere(
    context: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Kubernetes context of a member, once for each; instead of --mesh."
        ),
    ] = None,
    namespace: Annotated[
        str,
        typer.Option(
            "--namespace", "-n", metavar="NAMESPACE", help="Where clustermesh-apiserver is there."
        ),
    ] = NAMESPACE,
    kubeconfig: Annotated[
        str,
        typer.Option(metavar="FILE", help="Else what kubectl would use.", show_default=False),
    ] = "",
    mesh: MeshOption = None,
    _release: Annotated[  # noqa: FBT002  # typer makes it a flag
        bool,
        typer.Option("--version", help="Say which release this is.", is_eager=True, callback=told),
    ] = False,
    no_color: Annotated[bool, typer.Option("--no-color", help="As NO_COLOR does.")] = False,  # noqa: FBT002  # typer makes it a flag
) -> None:
    """Connect clusters into one mesh, and see what it does.

    These options may stand behind a command as well.
    """
    CHOSEN.set(Chosen(tuple(context or ()), namespace, kubeconfig, mesh))
    if no_color:
        os.environ["NO_COLOR"] = "1"  # what rich, and whatever we start, asks


@app.command()
def version(output: Output = Format.TABLE) -> None:
    """Say which release this is."""
    if output is Format.JSON:
        show_json({"version": VERSION})
    else:
        say(f"meshctl {VERSION}")
