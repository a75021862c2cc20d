"""What must not leave a host: private keys, tokens, passwords. [pure]

Nothing of the kind is collected on purpose; this is the second line, for what a log or a peer says.
"""

import re
from typing import Final

from clustermesh.trust.token import MARK

GONE: Final = b"<redacted>"

_PEM: Final = re.compile(
    rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)",
    re.DOTALL,
)
# The same in base64, as Kubernetes Secrets and kubeconfigs have it: it begins with "-----BEGIN".
_PEM_64: Final = re.compile(rb"LS0tLS1CRUdJTi[A-Za-z0-9+/=]{16,}")
_JWT: Final = re.compile(rb"eyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]*")
_BEARER: Final = re.compile(rb"(?i)\b(bearer|basic)(\s+)[A-Za-z0-9._~+/=-]{6,}")
_URL: Final = re.compile(rb"(?i)\b([a-z][a-z0-9+.-]*://[^/\s:@]*):[^/\s@]+@")
_NAMED: Final = re.compile(
    rb"(?i)((?:pass(?:word|wd|phrase)?|secret|token|api[-_]?key|private[-_]?key|key-data|psk|"
    rb"credentials?)[a-z0-9_-]{0,20}\\*[\"']?\s*[:=]\s*)"
    rb"(\\*\"(?:[^\"\\\n]|\\.)*\"?|\\*'[^'\n]*'?|[^\s\"',;{}\[\]]+)"
)
_TOKEN: Final = re.compile(re.escape(MARK.encode()) + rb"\.[A-Za-z0-9._-]{8,}")
"""A join token, or a part of one."""
_END: Final = re.compile(rb"-----END [A-Z0-9 ]*PRIVATE KEY-----")
_BASE64: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\\\r\n"
_PEM_LINE: Final = re.compile(rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----(?:\\+n|[A-Za-z0-9+/=\\])*")


def redacted(content: bytes) -> bytes:
    """The content without secrets; what was there is marked."""
    for pattern in (_PEM, _PEM_LINE, _PEM_64, _JWT, _TOKEN):
        content = pattern.sub(GONE, content)
    content = _headless(content)
    content = _BEARER.sub(rb"\1\2" + GONE, content)
    content = _URL.sub(rb"\1:" + GONE + b"@", content)
    return _NAMED.sub(_named, content)


def _headless(content: bytes) -> bytes:
    """Without what is before the end of a private key whose beginning was cut off."""
    parts = _END.split(content)
    kept = [part.rstrip(_BASE64) if at < len(parts) - 1 else part for at, part in enumerate(parts)]
    return GONE.join(kept)


def _named(found: "re.Match[bytes]") -> bytes:
    """Keep the quotes, so that JSON stays JSON; paths and plain words of state stay, too."""
    value = found[2]
    bare = value.lstrip(b"\\").strip(b"\"'").rstrip(b"\\")
    if bare.startswith(b"/") or bare.lower() in _HARMLESS:
        return found[0]
    quote = value[: len(value) - len(value.lstrip(b"\\\"'"))]
    return found[1] + quote + GONE + quote


_HARMLESS: Final = frozenset({b"", b"null", b"none", b"true", b"false", GONE})
