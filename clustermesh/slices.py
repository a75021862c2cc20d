"""Endpoint slices on the wire: one zstd frame of a protobuf message (contract kvstore 2.7)."""

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from clustermesh.checks import BadFact
from clustermesh.model import EndpointSlice, SliceEndpoint, SlicePort

if TYPE_CHECKING:
    import zstandard

LARGEST = 16 << 20
"""Bytes of a message that a reader will hold."""

VARINT, FIXED64, LENGTH, GROUP, END_GROUP, FIXED32 = 0, 1, 2, 3, 4, 5
FIXED = {FIXED64: 8, FIXED32: 4}
Field = tuple[int, int | bytes]


def encode(slice_: EndpointSlice) -> bytes:
    """The value for etcd."""
    return _compressor().compress(message(slice_))


def decode(value: bytes) -> EndpointSlice:
    """The slice in a value of etcd. Raises ``BadFact``."""
    import zstandard

    try:
        size = zstandard.frame_content_size(value)  # -1: the frame leaves it out
        if size > LARGEST:
            raise BadFact(f"value: larger than {LARGEST} bytes when decompressed")
        data = _decompressor().decompress(value, max_output_size=0 if size >= 0 else LARGEST)
    except zstandard.ZstdError as error:
        raise BadFact(f"value: not a zstd frame of at most {LARGEST} bytes ({error})") from None
    return read(data)


@lru_cache(maxsize=1)
def _compressor() -> "zstandard.ZstdCompressor":
    import zstandard

    return zstandard.ZstdCompressor()


@lru_cache(maxsize=1)
def _decompressor() -> "zstandard.ZstdDecompressor":
    import zstandard

    return zstandard.ZstdDecompressor()


# --- writing -----------------------------------------------------------------------------------


def message(slice_: EndpointSlice) -> bytes:
    """The protobuf message: plain strings always written, maps in the order of their keys."""
    parts = [
        _text(1, slice_.cluster),
        _tag(2, VARINT) + _varint(slice_.cluster_id),
        _text(3, slice_.namespace),
        _text(4, slice_.name),
        _map(5, slice_.labels),
        _map(6, slice_.annotations),
        _text(7, slice_.address_type),
        *(_bytes(8, _endpoint(endpoint)) for endpoint in slice_.endpoints),
        *(_bytes(9, _port(port)) for port in slice_.ports),
    ]
    return b"".join(parts)


def _endpoint(endpoint: SliceEndpoint) -> bytes:
    conditions = b"".join(
        _tag(number, VARINT) + _varint(int(value))
        for number, value in enumerate(
            (endpoint.ready, endpoint.serving, endpoint.terminating), start=1
        )
        if value is not None
    )
    hints = b"".join(_bytes(1, _text(1, zone)) for zone in endpoint.zone_hints)
    return b"".join(
        (
            *(_text(1, address) for address in endpoint.addresses),
            _bytes(2, conditions),
            _text(3, endpoint.hostname) if endpoint.hostname else b"",
            _text(6, endpoint.node_name) if endpoint.node_name else b"",
            _text(7, endpoint.zone) if endpoint.zone else b"",
            _bytes(8, hints) if hints else b"",
        )
    )


def _port(port: SlicePort) -> bytes:
    number = b"" if port.port is None else _tag(3, VARINT) + _varint(port.port)
    app = _text(4, port.app_protocol) if port.app_protocol else b""
    return _text(1, port.name) + _text(2, port.protocol) + number + app


def _map(number: int, entries: dict[str, str]) -> bytes:
    return b"".join(
        _bytes(number, _text(1, key) + _text(2, entries[key])) for key in sorted(entries)
    )


def _text(number: int, text: str) -> bytes:
    return _bytes(number, text.encode())


def _bytes(number: int, data: bytes) -> bytes:
    return _tag(number, LENGTH) + _varint(len(data)) + data


def _tag(number: int, wire: int) -> bytes:
    return _varint(number << 3 | wire)


def _varint(value: int) -> bytes:
    value &= 0xFFFFFFFFFFFFFFFF  # negative int32 travel as 64-bit two's complement
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


# --- reading -----------------------------------------------------------------------------------


def read(data: bytes) -> EndpointSlice:
    """The slice that a protobuf message holds; unknown fields are skipped. Raises ``BadFact``."""
    try:
        return _slice(data)
    except (IndexError, UnicodeDecodeError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, BadFact):
            raise
        raise BadFact(f"value: not an endpoint slice message ({error})") from None


def _slice(data: bytes) -> EndpointSlice:
    one: dict[int, int | bytes] = {}
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    endpoints: list[SliceEndpoint] = []
    ports: list[SlicePort] = []
    for number, value in _fields(data):
        match number:
            case 5:
                labels.update([_entry(value)])
            case 6:
                annotations.update([_entry(value)])
            case 8:
                endpoints.append(_read_endpoint(value))
            case 9:
                ports.append(_read_port(value))
            case _:
                one[number] = value
    return EndpointSlice(
        cluster=_str(one.get(1, b"")),
        cluster_id=_int(one.get(2, 0)),
        namespace=_str(one.get(3, b"")),
        name=_str(one.get(4, b"")),
        labels=labels,
        annotations=annotations,
        address_type=_str(one.get(7, b"")),
        endpoints=tuple(endpoints),
        ports=tuple(ports),
    )


def _read_endpoint(data: int | bytes) -> SliceEndpoint:
    one: dict[int, int | bytes] = {}
    addresses: list[str] = []
    for number, value in _fields(data):
        if number == 1:
            addresses.append(_str(value))
        else:
            one[number] = value
    conditions = dict(_fields(one.get(2, b"")))
    known = {number: bool(_int(value)) for number, value in conditions.items()}
    return SliceEndpoint(
        addresses=tuple(addresses),
        ready=known.get(1),
        serving=known.get(2),
        terminating=known.get(3),
        hostname=_str(one.get(3, b"")),
        node_name=_str(one.get(6, b"")),
        zone=_str(one.get(7, b"")),
        zone_hints=tuple(
            _str(dict(_fields(zone)).get(1, b""))
            for number, zone in _fields(one.get(8, b""))
            if number == 1
        ),
    )


def _read_port(data: int | bytes) -> SlicePort:
    one = dict(_fields(data))
    return SlicePort(
        name=_str(one.get(1, b"")),
        protocol=_str(one.get(2, b"TCP")),
        port=_int(one[3]) if 3 in one else None,
        app_protocol=_str(one.get(4, b"")),
    )


def _entry(data: int | bytes) -> tuple[str, str]:
    one = dict(_fields(data))
    return _str(one.get(1, b"")), _str(one.get(2, b""))


def _str(value: int | bytes) -> str:
    if isinstance(value, int):
        raise BadFact("value: a number where the message has text")
    return value.decode()


def _int(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise BadFact("value: text where the message has a number")
    return value - (1 << 64) if value >> 63 else value


def _fields(data: int | bytes) -> Iterator[Field]:
    """Number and value of each field, in order; fixed-width ones and groups are skipped."""
    if isinstance(data, int):
        raise BadFact("value: a number where the message has a message")
    at, depth = 0, 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        wire = tag & 7
        value, at = _read_value(data, at, wire)
        depth += (wire == GROUP) - (wire == END_GROUP)
        if depth < 0:
            raise BadFact("value: the end of a group that did not begin")
        if value is not None and not depth:
            yield tag >> 3, value
    if depth:
        raise BadFact("value: the message ends inside a group")


def _read_value(data: bytes, at: int, wire: int) -> tuple[int | bytes | None, int]:
    """The value of one field, None for what nobody reads, and where the next one begins."""
    if wire == VARINT:
        return _read_varint(data, at)
    if wire in (GROUP, END_GROUP):
        return None, at
    if wire == LENGTH:
        size, at = _read_varint(data, at)
    elif wire in FIXED:
        size = FIXED[wire]
    else:
        raise BadFact(f"value: wire type {wire} is not known")
    if at + size > len(data):
        raise BadFact("value: the message ends inside a field")
    return data[at : at + size] if wire == LENGTH else None, at + size


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise BadFact("value: the message ends inside a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
    raise BadFact("value: a number of more than ten bytes")
