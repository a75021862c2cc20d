"""``kvstoremesh status``: what the process beside us says of itself, in columns."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec

from clustermesh.kvstoremesh.settings import Settings as ProcessSettings
from clustermesh.meshctl.api import NoAnswer, fetch
from clustermesh.meshctl.output import columns, duration
from clustermesh.process import FAULT, USAGE
from clustermesh.settings import SettingsError, about, load
from clustermesh.status import KvstoremeshStatus, RemoteStatus

COMMAND: Final = "status"
SUMMARY: Final = "Shows what the kvstoremesh on this machine says of itself."
SOCKET: Final = next(
    field.default for field in msgspec.structs.fields(ProcessSettings) if field.name == "api_socket"
)
HEADER: Final = ("CLUSTER", "ID", "READY", "NODES", "IDENTITIES", "ENDPOINTS", "SERVICES", "BEAT")


class Settings(
    msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True
):
    """Where to ask, and how to show it."""

    api_socket: Annotated[Path, about("unix socket of the process")] = SOCKET
    json: Annotated[bool, about("the answer as it came")] = False


def main(argv: Sequence[str]) -> int:
    """Show it; 0 when all is well, 1 when not or when nobody answers, 2 for a wrong flag."""
    try:
        settings = load(Settings, argv, program=f"kvstoremesh {COMMAND}", summary=SUMMARY)
        status = fetch(f"unix:{settings.api_socket}", "/v1/status", KvstoremeshStatus)
    except SettingsError as error:
        sys.stderr.write(f"kvstoremesh: {error}\n")
        return USAGE
    except NoAnswer as error:
        sys.stderr.write(f"kvstoremesh: {error}; is the process running?\n")
        return FAULT
    if settings.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(status), indent=2).decode() + "\n")
    else:
        sys.stdout.write(render(status))
    return 0 if status.ready and not status.trouble else FAULT


def render(status: KvstoremeshStatus) -> str:
    """Lines for an operator."""
    state = "ready" if status.ready else "not ready"
    lines = [
        f"{status.cluster} (id {status.cluster_id}), replica {status.replica}: {status.role}",
        f"{state}, {status.pending} keys to write; {status.etcd}",
    ]
    if status.remotes:
        lines += ["", columns(HEADER, map(_row, status.remotes))]
    if status.trouble:
        lines += ["", *(f"! {sentence}" for sentence in status.trouble)]
    return "\n".join(lines) + "\n"


def _row(remote: RemoteStatus) -> Sequence[str]:
    counts = (
        remote.num_nodes,
        remote.num_identities,
        remote.num_endpoints,
        remote.num_shared_services,
    )
    return (
        remote.name,
        str(remote.config.cluster_id or "-"),
        "yes" if remote.ready else "no",
        *map(str, counts),
        duration(remote.heartbeat_age),
    )
