"""``meshctl endpoint``: pods' addresses as their own clusters publish them."""

from typing import Annotated, Final

import msgspec
import typer

from clustermesh import gojson
from clustermesh.meshctl import api
from clustermesh.meshctl.context import MeshOption, open_mesh
from clustermesh.meshctl.errors import Exit, MeshctlError
from clustermesh.meshctl.kvstore import ClusterOption, chosen, entries
from clustermesh.meshctl.output import Format, Output, columns, complain, say, show_json
from clustermesh.meshfile import Cluster, Mesh
from clustermesh.model import IPEntry

ADDRESSES: Final = "cilium/state/ip/v1/default/"
IDENTITIES: Final = "cilium/state/identities/v1/id/"

_reader = gojson.Reader(IPEntry)


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """An address; ``name`` is ``namespace/pod``, empty for what is no pod."""

    cluster: str
    address: str
    name: str = ""
    identity: int = 0
    node_ip: str = ""
    labels: tuple[str, ...] = ()
    """Of its identity; only ``show`` asks for them."""


def list_(
    mesh: MeshOption = None, cluster: ClusterOption = "", output: Output = Format.TABLE
) -> None:
    """Addresses that clusters publish: pod, identity and node."""
    found = gather(open_mesh(mesh), cluster)
    if output is Format.JSON:
        show_json(found)
    else:
        say(table(found))


def show(
    which: Annotated[
        str, typer.Argument(metavar="CLUSTER/NAMESPACE/POD | ADDRESS", show_default=False)
    ],
    mesh: MeshOption = None,
    output: Output = Format.TABLE,
) -> None:
    """One pod, or whoever has an address, with its labels."""
    opened = open_mesh(mesh)
    cluster = which.split("/")[0] if which.count("/") == 2 else ""
    found = [
        msgspec.structs.replace(it, labels=labels(opened.cluster(it.cluster), it.identity))
        for it in gather(opened, cluster)
        if which in (it.address, f"{it.cluster}/{it.name}")
    ]
    if output is Format.JSON:
        show_json(found)
    else:
        for it in found:
            say(table([it]))
            say("\n".join(f"  {label}" for label in it.labels))
    if not found:
        raise MeshctlError(f"no cluster that was asked publishes {which}.")


def gather(mesh: Mesh, cluster: str = "") -> list[Endpoint]:
    """Of every cluster, or one; raises ``MeshctlError`` when no apiserver at all answers."""
    found: list[Endpoint] = []
    silent = []
    asked = chosen(mesh, cluster)
    for one in asked:
        try:
            found += of(one)
        except api.NoAnswer as error:
            silent.append(f"{one.name}: {error}")
    for line in silent:
        complain(line)
    if asked and len(silent) == len(asked):
        raise MeshctlError("no apiserver that was asked answers.", Exit.UNREACHABLE)
    return found


def of(cluster: Cluster, address: str = "") -> list[Endpoint]:
    """A cluster's addresses that begin so; what cannot be read is passed over."""
    found = []
    for kept in entries(cluster, ADDRESSES + address):
        try:
            it = _reader.decode(kept.value or b"")
        except msgspec.MsgspecError:
            continue
        found.append(
            Endpoint(
                cluster=cluster.name,
                address=kept.key.removeprefix(ADDRESSES),
                name=f"{it.namespace}/{it.pod}" if it.pod else "",
                identity=it.id,
                node_ip=it.host_ip,
            )
        )
    return found


def labels(cluster: Cluster, identity: int) -> tuple[str, ...]:
    """As the cluster publishes them; none of a reserved identity."""
    key = f"{IDENTITIES}{identity}"
    for kept in entries(cluster, key):
        if kept.key == key and kept.value:
            text = kept.value.decode(errors="replace")
            return tuple(label for label in text.split(";") if label)
    return ()


def table(found: list[Endpoint]) -> str:
    """A line per address."""
    rows = [
        (
            it.address,
            f"{it.cluster}/{it.name}" if it.name else it.cluster,
            str(it.identity),
            it.node_ip,
        )
        for it in found
    ]
    return columns(("ADDRESS", "ENDPOINT", "IDENTITY", "NODE IP"), sorted(rows))
