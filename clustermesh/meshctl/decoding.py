"""etcd's values as a person reads them (contract kvstore 2); whatever is there is shown. [pure]"""

import re
from base64 import b64encode
from typing import Final

import msgspec

from clustermesh import slices
from clustermesh.checks import BadFact

_PLACE: Final = re.compile(r"cilium/(?:state|cache)/([a-z-]+)/v1/")


def decoded(key: str, value: bytes) -> object:
    """A value for JSON: an object, a list of labels, or text. What cannot be decoded says so."""
    kind = place[1] if (place := _PLACE.match(key)) else ""
    if kind == "endpointslices":
        return _slice(value)
    if kind == "identities":
        return [label for label in as_text(value).split(";") if label]
    if value[:1] in b"{[":
        try:
            return msgspec.json.decode(value)
        except msgspec.DecodeError:
            return as_text(value)
    return as_text(value)


def pretty(key: str, value: bytes) -> str:
    """Indented, for one key."""
    told = decoded(key, value)
    if isinstance(told, str):
        return told
    return msgspec.json.format(msgspec.json.encode(told), indent=2).decode()


def as_text(value: bytes) -> str:
    """Text, or base64 of what is none; never a character that moves a cursor."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return f"base64:{b64encode(value).decode()}"
    return text if text.isprintable() else repr(text)[1:-1]


def _slice(value: bytes) -> object:
    """zstd and protobuf (contract kvstore 2.7)."""
    try:
        return msgspec.to_builtins(slices.decode(value))
    except BadFact as error:
        return {"error": str(error), "value": as_text(value)}
