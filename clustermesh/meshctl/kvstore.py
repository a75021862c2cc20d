"""``meshctl kvstore``: what the clusters' etcds hold, decoded; asked of their apiservers."""

import queue
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Annotated, Final

import msgspec
import typer

from clustermesh.kept import Kept, Line
from clustermesh.meshctl import api, completing, decoding
from clustermesh.meshctl.context import MeshOption, open_mesh
from clustermesh.meshctl.errors import Exit, MeshctlError
from clustermesh.meshctl.output import Format, Output, complain, say, show_json
from clustermesh.meshfile import Cluster, Mesh

TIMEOUT: Final = 30.0
SILENCE: Final = 7 * 86_400.0
"""Seconds for which a watch may have nothing to tell."""
WIDTH: Final = 160
"""Characters of a value in a list."""

app = typer.Typer(help="The clusters' etcds, decoded.", no_args_is_help=True)

ClusterOption = Annotated[str, completing.cluster_option("Only this cluster's etcd.")]
Prefix = Annotated[str, typer.Argument(metavar="PREFIX", help="Beginning of the keys.")]
Raw = Annotated[bool, typer.Option("--raw", help="Values as they are, not decoded.")]


class Shown(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """A key for a program: ``value`` decoded, or text with ``--raw``; null when it is gone."""

    key: str
    revision: int
    value: object


@app.command("get")
def get(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The whole key.", show_default=False)],
    mesh: MeshOption = None,
    cluster: ClusterOption = "",
    output: Output = Format.TABLE,
    *,
    raw: Raw = False,
) -> None:
    """One key as every cluster's etcd has it."""
    every, silent = _everywhere(open_mesh(mesh), cluster, key, limit=None)
    found = {
        name: entry for name, entries in every.items() for entry in entries if entry.key == key
    }
    if output is Format.JSON:
        show_json({name: shown(it, raw=raw) for name, it in found.items()})
    elif raw:
        for it in found.values():
            sys.stdout.buffer.write(it.value or b"")
    else:
        for name, it in found.items():
            say(f"{name}, revision {it.revision}:\n{decoding.pretty(it.key, it.value or b'')}")
    _judge(silent)
    if not found:
        raise MeshctlError(f"no etcd that was asked has {key}.")


@app.command("list")
def list_(
    prefix: Prefix = "cilium/",
    mesh: MeshOption = None,
    cluster: ClusterOption = "",
    output: Output = Format.TABLE,
    *,
    raw: Raw = False,
    keys_only: Annotated[bool, typer.Option("--keys-only", help="No values.")] = False,
    limit: Annotated[
        int, typer.Option(metavar="NUMBER", help="At most so many keys per cluster.", min=1)
    ] = 10_000,
) -> None:
    """Every key that begins so, in every cluster's etcd."""
    found, silent = _everywhere(open_mesh(mesh), cluster, prefix, limit=limit)
    if output is Format.JSON:
        show_json({
            name: [entry.key if keys_only else shown(entry, raw=raw) for entry in entries]
            for name, entries in found.items()
        })  # fmt: skip
    else:
        for name, entries in found.items():
            say(f"{name}: {len(entries)} keys")
            for entry in entries:
                say(f"  {entry.key}" if keys_only else f"  {entry.key}  {_short(entry, raw=raw)}")
    for name, entries in found.items():
        if len(entries) == limit:
            complain(f"{name}: there may be more than these {limit} keys: see --limit")
    _judge(silent)


@app.command("watch")
def watch(
    prefix: Prefix = "cilium/",
    mesh: MeshOption = None,
    cluster: ClusterOption = "",
    output: Output = Format.TABLE,
    *,
    raw: Raw = False,
) -> None:
    """Changes as they happen, until Ctrl-C."""
    lines: queue.SimpleQueue[tuple[str, Line | str]] = queue.SimpleQueue()
    asked = chosen(open_mesh(mesh), cluster)
    for one in asked:
        threading.Thread(target=_follow, args=(one, prefix, lines), daemon=True).start()
    ended = 0
    while ended < len(asked):
        name, line = lines.get()
        if isinstance(line, Kept):
            _tell(name, line, output, raw=raw)
        else:
            ended += 1
            complain(f"{name}: {line if isinstance(line, str) else line.error or 'ended'}")
    raise MeshctlError("no apiserver tells any more.", Exit.UNREACHABLE)


def shown(entry: Kept, *, raw: bool) -> Shown:
    """An entry for a program."""
    value: object = None
    if entry.value is not None:
        value = decoding.as_text(entry.value) if raw else decoding.decoded(entry.key, entry.value)
    return Shown(key=entry.key, revision=entry.revision, value=value)


def entries(cluster: Cluster, prefix: str, limit: int | None = None) -> Iterator[Kept]:
    """Keys of one etcd; raises ``NoAnswer``, also in the middle."""
    body = {"prefix": prefix} if limit is None else {"prefix": prefix, "limit": str(limit)}
    for line in api.lines(cluster.apiserver, "/v1/kvstore", timeout=TIMEOUT, body=body):
        told = msgspec.json.decode(line, type=Line)
        if isinstance(told, Kept):
            yield told
            continue
        if told.error:
            raise api.NoAnswer(f"the etcd of {cluster.name} does not answer: {told.error}")
        return


def _everywhere(
    mesh: Mesh, cluster: str, prefix: str, *, limit: int | None
) -> tuple[dict[str, list[Kept]], list[str]]:
    """What each etcd has, and why one could not be read."""
    found: dict[str, list[Kept]] = {}
    silent = []
    for one in chosen(mesh, cluster):
        try:
            found[one.name] = list(entries(one, prefix, limit))
        except api.NoAnswer as error:
            silent.append(f"{one.name}: {error}")
    return found, silent


def _judge(silent: Sequence[str]) -> None:
    """Not all of it is there: that is an end of its own, whatever was shown."""
    for line in silent[:-1]:
        complain(line)
    if silent:
        raise MeshctlError(silent[-1], Exit.UNREACHABLE)


def chosen(mesh: Mesh, cluster: str) -> list[Cluster]:
    """The one of this name, or all; those whose apiserver is known."""
    those = [mesh.cluster(cluster)] if cluster else list(mesh.clusters)
    return [one for one in those if one.apiserver]


def _follow(
    cluster: Cluster, prefix: str, lines: "queue.SimpleQueue[tuple[str, Line | str]]"
) -> None:
    path, body = "/v1/kvstore/watch", {"prefix": prefix}
    try:
        for line in api.lines(cluster.apiserver, path, timeout=SILENCE, body=body):
            if line.strip():
                lines.put((cluster.name, msgspec.json.decode(line, type=Line)))
    except api.NoAnswer as error:
        lines.put((cluster.name, str(error)))


def _tell(name: str, entry: Kept, output: Format, *, raw: bool) -> None:
    if output is Format.JSON:
        told = {"cluster": name, **msgspec.to_builtins(shown(entry, raw=raw))}
        say(msgspec.json.encode(told).decode())
    else:
        what = "gone" if entry.value is None else _short(entry, raw=raw)
        say(f"{name}  {entry.revision}  {entry.key}  {what}")
    sys.stdout.flush()


def _short(entry: Kept, *, raw: bool) -> str:
    told = shown(entry, raw=raw).value
    text = told if isinstance(told, str) else msgspec.json.encode(told).decode()
    return text if len(text) <= WIDTH or raw else f"{text[: WIDTH - 3]}..."
