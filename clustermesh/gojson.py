"""JSON exactly as Go's encoding/json writes it, and read as forgivingly as Go reads it."""

from collections.abc import Callable
from functools import lru_cache
from typing import Final, Generic, TypeVar

import msgspec

from clustermesh.gonames import Fold, as_written, names_of, reading, tolerant_of

T = TypeVar("T")
S = TypeVar("S")

TOO_DEEP: Final = "Nested too deeply"

_encoder = msgspec.json.Encoder(order="deterministic")
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
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

    def __init__(self, type_: type[T], *, fold: Fold = as_written) -> None:
        """Build the decoder once; keep the reader at module level.

        With a ``fold`` every struct of the type must refuse unknown fields: that is how a name in
        another spelling is noticed. Raises ``TypeError`` for one that does not.
        """
        info = msgspec.inspect.type_info(type_)
        self._type = type_
        self._fold = fold
        if fold is not as_written and (tolerant := next(tolerant_of(info), None)):
            raise TypeError(f"{tolerant.__name__}: expected forbid_unknown_fields=True")
        self._names = frozenset(names_of(info) if fold is not as_written else ())
        self._folded = frozenset(map(fold, self._names))
        self._without = lru_cache(maxsize=64)(self._strangers_cut)
        """A release writes the same names into thousands of documents."""
        self._decode = msgspec.json.Decoder(type_).decode
        self._spelled = reading(info, fold)

    def decode(self, data: bytes) -> T:
        """The value in ``data``. Only what the strict decoder refuses is looked at twice."""
        try:
            return self._decode(data)
        except (msgspec.ValidationError, RecursionError, UnicodeDecodeError):
            return self._patient(data)

    def _patient(self, data: bytes) -> T:
        """A later release may write names that nobody here reads: what is left without them is
        read as usual. Go reads what is not UTF-8 as U+FFFD, and ``null`` as the zero value.
        """
        try:
            if self._names and (known := self._known(data)) is not None:
                return self._decode(known)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            pass  # the patient way says what is wrong
        return self.forgiving(data)

    def _known(self, data: bytes) -> bytes | None:
        """The document without its strangers, if they are all that is unusual about its names."""
        members = _members.decode(data)
        if (without := self._without(tuple(members))) is None:
            return None
        kept, document = without
        return document % tuple(map(members.__getitem__, kept))

    def _strangers_cut(self, names: tuple[str, ...]) -> tuple[tuple[str, ...], bytes] | None:
        """Of members with these names those to keep, and the document to put them in. None when
        there is no stranger, or when one may be a field in another spelling.
        """
        kept = tuple(name for name in names if name in self._names)
        strangers = set(names).difference(kept)
        if not strangers or not self._folded.isdisjoint(map(self._fold, strangers)):
            return None
        return kept, b"{%b}" % b",".join(b'"%b":%%b' % name.encode() for name in kept)

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
