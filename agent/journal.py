"""The journal of one cluster as bytes: records one after another, and what they say in the end."""

import zlib
from collections.abc import Iterator, Mapping
from enum import IntEnum
from struct import Struct
from typing import Final

import msgspec

from clustermesh.keys import Kind
from clustermesh.local import AnyKind, LocalKind

KEPT: Final[Mapping[str, AnyKind]] = {
    kind: kind for kind in (Kind.NODES, Kind.SERVICES, Kind.ENDPOINT_SLICES, LocalKind.SERVICES)
}
"""Kinds that are remembered. Addresses and identities are found in the maps again; of the own
cluster's services their policies are kept (``services.policies``)."""

OTHER_FORM: Final[Mapping[AnyKind, AnyKind]] = {
    Kind.SERVICES: Kind.ENDPOINT_SLICES,
    Kind.ENDPOINT_SLICES: Kind.SERVICES,
}
"""A cluster tells its services in one of two forms: a full list in one takes the other's place."""

VERSION: Final = 1
FRAME: Final = Struct("<II")  # length and CRC-32 of the payload that follows


class Op(IntEnum):
    """What a record says."""

    HEADER = 0
    PUT = 1
    DELETE = 2
    LISTING = 3
    LISTED = 4


class Line(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """One record. In a header ``key`` is the cluster and ``number`` its id."""

    op: Op
    kind: str = ""
    key: str = ""
    value: bytes = b""
    number: int = 0
    version: int = VERSION


encoder: Final = msgspec.msgpack.Encoder()
decoder: Final = msgspec.msgpack.Decoder(Line)


class Saved(msgspec.Struct, frozen=True):
    """What was known of one cluster: raw values by kind and name.

    ``repeated``: of the kinds whose full list had begun and not ended, the names it had told.
    """

    cluster: str
    cluster_id: int
    facts: Mapping[AnyKind, Mapping[str, bytes]]
    repeated: Mapping[AnyKind, frozenset[str]]


def frame(line: Line) -> bytes:
    """The record as bytes."""
    payload = encoder.encode(line)
    return FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def whole(data: bytes) -> int:
    """How many bytes there are before the first torn record."""
    return sum(size for size, _ in _lines(data))


def fold(data: bytes) -> Saved | None:
    """What a journal says in the end; None when it has no header of our version."""
    lines = (line for _, line in _lines(data))
    header = next(lines, None)
    if header is None or header.op is not Op.HEADER or header.version != VERSION:
        return None
    facts: dict[AnyKind, dict[str, bytes]] = {}
    repeated: dict[AnyKind, set[str]] = {}
    for line in lines:
        if line.kind in KEPT:
            kind = KEPT[line.kind]
            _replay(line, kind, facts.setdefault(kind, {}), repeated)
            if line.op is Op.LISTED and kind in OTHER_FORM:
                facts.pop(OTHER_FORM[kind], None)
                repeated.pop(OTHER_FORM[kind], None)
    told = {kind: frozenset(names) for kind, names in repeated.items()}
    return Saved(header.key, header.number, facts, told)


def unfold(saved: Saved) -> bytes:
    """The shortest journal that says the same, also to what is appended to it."""
    lines = [Line(Op.HEADER, key=saved.cluster, number=saved.cluster_id)]
    for kind, facts in saved.facts.items():
        told = saved.repeated.get(kind)
        lines += (
            Line(Op.PUT, kind, key, value)
            for key, value in facts.items()
            if told is None or key not in told
        )
        if told is not None:
            lines.append(Line(Op.LISTING, kind))
            lines += (Line(Op.PUT, kind, key, value) for key, value in facts.items() if key in told)
    return b"".join(map(frame, lines))


def _lines(data: bytes) -> Iterator[tuple[int, Line]]:
    """Sizes in bytes and records, up to the first that is torn."""
    at = 0
    while at + FRAME.size <= len(data):
        length, checksum = FRAME.unpack_from(data, at)
        payload = data[at + FRAME.size : at + FRAME.size + length]
        if len(payload) != length or zlib.crc32(payload) != checksum:
            return
        try:
            yield FRAME.size + length, decoder.decode(payload)
        except msgspec.MsgspecError:
            return
        at += FRAME.size + length


def _replay(
    line: Line, kind: AnyKind, facts: dict[str, bytes], repeated: dict[AnyKind, set[str]]
) -> None:
    match line.op:
        case Op.PUT:
            facts[line.key] = line.value
            if kind in repeated:
                repeated[kind].add(line.key)
        case Op.DELETE:
            facts.pop(line.key, None)
        case Op.LISTING:
            repeated[kind] = set()
        case Op.LISTED:
            for key in facts.keys() - repeated.pop(kind, facts.keys()):
                del facts[key]
        case Op.HEADER:
            facts.clear()
