"""What an API server answers instead of what was asked for, in words that say what to do next."""

import msgspec


class ApiFailure(Exception):
    """Any refusal or silence. The text is a clause for an operator, without a full stop."""


class Unreachable(ApiFailure):
    """No usable answer now: wait (``retry_after`` seconds when the server says), then go on."""

    def __init__(self, text: str, *, retry_after: float = 0.0) -> None:
        """``retry_after`` 0: the server did not say."""
        super().__init__(text)
        self.retry_after = retry_after


class Gone(ApiFailure):
    """The revision asked for is no longer known (410): list again."""


class Unauthorized(ApiFailure):
    """The credentials are not accepted (401): get new ones."""


class Forbidden(ApiFailure):
    """We are known and may not do this (403): an operator has to grant it."""


class Missing(ApiFailure):
    """The object, or the whole kind, does not exist (404)."""


class Conflict(ApiFailure):
    """Somebody else wrote first, or the object exists already (409)."""


class Unsupported(ApiFailure):
    """The server does not take this request as it stands (400, 405, 415, 422 ...)."""


class CredentialsError(Unauthorized):
    """No credentials can be had: a file, context or plugin is missing or fails."""


class _Details(msgspec.Struct, frozen=True):
    retry_after: float = msgspec.field(name="retryAfterSeconds", default=0.0)


class Status(msgspec.Struct, frozen=True):
    """metav1.Status: the body of a refusal, and the object of an ERROR event."""

    code: int = 0
    reason: str = ""
    message: str = ""
    details: _Details | None = None


_status = msgspec.json.Decoder(Status)
_BY_CODE: dict[int, type[ApiFailure]] = {
    401: Unauthorized,
    403: Forbidden,
    404: Missing,
    409: Conflict,
    410: Gone,
}
_LATER = frozenset({408, 425, 429})
_MESSAGE_LIMIT = 300


def failure(code: int, body: bytes, *, retry_after: float = 0.0) -> ApiFailure:
    """The failure that an HTTP answer means; ``retry_after`` is that of its header."""
    try:
        status = _status.decode(body)
    except msgspec.MsgspecError:
        status = Status(message=body[:_MESSAGE_LIMIT].decode(errors="replace").strip())
    return translate(status, code=code, retry_after=retry_after)


def translate(status: Status, *, code: int = 0, retry_after: float = 0.0) -> ApiFailure:
    """The failure that a Status means; ``code`` counts when the status itself has none."""
    number = status.code or code
    text = _clause(number, status)
    if status.reason in {"Expired", "Gone"}:
        return Gone(text)
    if known := _BY_CODE.get(number):
        return known(text)
    if number in _LATER or number >= 500 or number < 400:
        said = status.details.retry_after if status.details else 0.0
        return Unreachable(text, retry_after=max(said, retry_after))
    return Unsupported(text)


def _clause(number: int, status: Status) -> str:
    message = " ".join(status.message.split())[:_MESSAGE_LIMIT].rstrip(".")
    name = status.reason or "no reason given"
    return f"the API server answers {number} ({name})" + (f": {message}" if message else "")
