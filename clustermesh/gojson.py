"""JSON exactly as Go's encoding/json writes it, and read as forgivingly as Go reads it."""

from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")
S = TypeVar("S")

_encoder = msgspec.json.Encoder(order="deterministic")

# Inside JSON these characters occur in strings only, so replacing bytes cannot touch structure.
_ESCAPES = (
    (b"&", b"\\u0026"),
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    (b"\xe2\x80\xa8", b"\\u2028"),
    (b"\xe2\x80\xa9", b"\\u2029"),
)


def encode(value: object) -> bytes:
    """No spaces, fields in declaration order, map keys sorted bytewise, HTML characters escaped.

    Source: contract kvstore 2 (preamble).
    """
    text = _encoder.encode(value)
    for character, escape in _ESCAPES:
        if character in text:
            text = text.replace(character, escape)
    return text


def always(value: S) -> S:
    """A field that is written even at its zero value: ``x: str = always("")``.

    msgspec leaves out what equals a default, but never what a default factory makes.
    """
    factory: Callable[[], S] = lambda: value  # noqa: E731 - a named function would say no more
    return msgspec.field(default_factory=factory)


class Reader(Generic[T]):
    """Decodes one type; unknown fields are ignored, missing ones and ``null`` mean zero value.

    Raises ``msgspec.ValidationError`` (with the field's path) or ``msgspec.DecodeError``.
    """

    def __init__(self, type_: type[T]) -> None:
        """Build the decoder once; keep the reader at module level."""
        self._type = type_
        self._decode = msgspec.json.Decoder(type_).decode

    def decode(self, data: bytes) -> T:
        """The value in ``data``. Only what the strict decoder refuses is looked at twice."""
        try:
            return self._decode(data)
        except msgspec.ValidationError:
            if b"null" not in data:
                raise
        except (RecursionError, UnicodeDecodeError) as error:
            raise msgspec.DecodeError(_sentence(error)) from None
        return self._forgiving(data)

    def _forgiving(self, data: bytes) -> T:
        try:
            value = msgspec.json.decode(data)
        except (RecursionError, UnicodeDecodeError) as error:
            raise msgspec.DecodeError(_sentence(error)) from None
        return self.convert(value)

    def convert(self, value: object) -> T:
        """The value that ``value`` (dicts, lists, strings, numbers) spells."""
        try:
            return msgspec.convert(_without_nulls(value), self._type)
        except RecursionError as error:
            raise msgspec.DecodeError(_sentence(error)) from None


def _sentence(error: RecursionError | UnicodeDecodeError) -> str:
    return "Not UTF-8" if isinstance(error, UnicodeDecodeError) else "Nested too deeply"


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_nulls(v) for v in value]
    return value
