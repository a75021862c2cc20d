"""Where every gRPC status becomes one of the store's few words."""

import re

from kvstore._grpc import grpc
from kvstore.client import (
    Conflict,
    Denied,
    HistoryLost,
    LeaseGone,
    OtherPast,
    Refused,
    StoreError,
    Unavailable,
)

_CODES = grpc.StatusCode

_BY_TEXT: tuple[tuple[str, type[StoreError]], ...] = (
    ("compacted", HistoryLost),
    ("future revision", OtherPast),
    ("permission denied", Denied),
    ("invalid auth token", Denied),
    ("auth store is old", Unavailable),
    ("user name is empty", Denied),
    ("user name not found", Denied),  # 3.5.30 of a certificate; before: "permission denied"
    ("authentication failed", Denied),
    ("authentication is not enabled", Denied),
    ("lease not found", LeaseGone),
    ("too large", Refused),
    ("larger than max", Refused),
    ("duplicate key", Refused),
    ("too many operations", Refused),
    ("key is not provided", Refused),
)
_BY_CODE: dict[object, type[StoreError]] = {
    _CODES.OUT_OF_RANGE: HistoryLost,
    _CODES.PERMISSION_DENIED: Denied,
    _CODES.UNAUTHENTICATED: Denied,
    _CODES.INVALID_ARGUMENT: Refused,
    _CODES.UNIMPLEMENTED: Refused,
    _CODES.FAILED_PRECONDITION: Conflict,
    _CODES.ALREADY_EXISTS: Conflict,
    _CODES.NOT_FOUND: Conflict,
}
_TOKEN = ("invalid auth token", "auth store is old", "user name is empty")
"""The last: authentication was turned on under a connection that was made without it."""
_BROKEN = frozenset(
    {
        _CODES.UNAVAILABLE,
        _CODES.DEADLINE_EXCEEDED,
        _CODES.CANCELLED,
        _CODES.UNKNOWN,
        _CODES.INTERNAL,
    }
)


def word(text: str, code: object = None) -> type[StoreError]:
    """The word for a status; etcd's texts say more than its codes, so they are looked at first."""
    lower = text.lower()
    for part, kind in _BY_TEXT:
        if part in lower:
            return kind
    return _BY_CODE.get(code, Unavailable)


def translate(error: grpc.aio.AioRpcError) -> StoreError:
    """The failure of a call as one of our words, with the sentence that the other side gave."""
    text = sentence(error.details() or "", error.code())
    return word(text, error.code())(text)


def breaks(error: grpc.aio.AioRpcError) -> bool:
    """Does this failure say something about the connection, rather than about the request?

    What etcd itself says (its texts start with its name) came over a connection that works, with
    one exception: a member without a leader is of no use, another one may be.
    """
    details = error.details() or ""
    if details.startswith("etcdserver:"):
        return "leader" in details and bool(error.code() is _CODES.UNAVAILABLE)
    return error.code() in _BROKEN


def asks_for_new_token(error: grpc.aio.AioRpcError) -> bool:
    """Will the same call work after authenticating again?"""
    details = error.details() or ""
    return any(text in details for text in _TOKEN)


def sentence(details: str, code: object) -> str:
    """gRPC's details without its nesting: ``... last error: UNKNOWN: ipv4:...: connect: refused``
    becomes the end of it.
    """
    if details.startswith("etcdserver:"):
        return details
    if code is _CODES.DEADLINE_EXCEEDED:
        return "no answer in time"
    last = details.rpartition("last error: ")[2]
    last = re.sub(r"^(UNKNOWN|UNAVAILABLE|INTERNAL|FAILED_PRECONDITION): ", "", last)
    last = re.sub(r"^ipv[46]:(%5B)?([0-9a-fA-F.:]+?)(%5D)?:(\d+): ", "", last)
    return " ".join(last.split()) or str(getattr(code, "name", code))
