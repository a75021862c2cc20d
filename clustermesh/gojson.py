"""JSON exactly as Go's encoding/json writes it, and read as forgivingly as Go reads it."""

import re
from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar

import msgspec

from clustermesh.gonames import Fold, as_written, reading

T = TypeVar("T")
S = TypeVar("S")

TOO_DEEP: Final = "Nested too deeply"

_encoder = msgspec.json.Encoder(order="deterministic")
_anything = msgspec.json.Decoder(float_hook=float)
"""Numbers beyond a float's range are no reason to refuse what nobody reads: Go skips them."""

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

    ``fold`` gives names that are to be taken for the same, such as ``str.lower``. Raises
    ``msgspec.ValidationError`` (with the field's path) or ``msgspec.DecodeError``.
    """

    def __init__(
        self, type_: type[T], *, fold: Fold = as_written, unusual: tuple[bytes, ...] = ()
    ) -> None:
        """Build the decoder once; keep the reader at module level. ``unusual`` are spellings of
        inner names that Go would not write."""
        self._type = type_
        self._decode = msgspec.json.Decoder(type_).decode
        self._spelled = reading(msgspec.inspect.type_info(type_), fold)
        names = () if fold is as_written else _always_written(type_)
        self._unusual = re.compile(b"|".join(map(re.escape, unusual))).search if unusual else None
        self._always = tuple(f'"{name}"'.encode() for name in names)
        self._opening = b"{" + b"".join(self._always[:1]) + b":"

    def decode(self, data: bytes) -> T:
        """The value in ``data``. Only what the strict decoder refuses, and what neither begins as
        Go would write it nor has all names that Go always writes, is looked at twice."""
        try:
            value = self._decode(data)
        except msgspec.ValidationError:
            if b"null" not in data and self._usual(data):
                raise
        except (RecursionError, UnicodeDecodeError):
            pass  # Go reads what is not UTF-8 as U+FFFD
        else:
            if self._unusual is None and data.startswith(self._opening):
                return value  # as ``_usual`` finds, without a call for each of a million addresses
            if self._usual(data):
                return value
        return self.forgiving(data)

    def _usual(self, data: bytes) -> bool:
        if self._unusual is not None and self._unusual(data):
            return False
        return data.startswith(self._opening) or all(name in data for name in self._always)

    def forgiving(self, data: bytes) -> T:
        """The value in ``data``, every name looked at."""
        try:
            value = _anything.decode(data.decode(errors="replace"))
        except RecursionError:
            raise msgspec.DecodeError(TOO_DEEP) from None
        return self.convert(value)

    def convert(self, value: object) -> T:
        """The value that ``value`` (dicts, lists, strings, numbers) spells."""
        try:
            return msgspec.convert(self._spelled(value), self._type)
        except RecursionError:
            raise msgspec.DecodeError(TOO_DEEP) from None


def _always_written(type_: type) -> Iterator[str]:
    """Names of the fields that are written even at their zero value; see ``always``."""
    for field in msgspec.structs.fields(type_):
        if field.default_factory is not msgspec.NODEFAULT:
            yield field.encode_name
