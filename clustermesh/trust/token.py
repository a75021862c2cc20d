"""Join tokens: an invitation from one cluster to one other, signed, expiring, good once. [pure]

Text: ``cmj1.`` payload ``.`` signature, both in base64url without padding; the payload is JSON with
the fields of ``Token``. It is signed with the key of the inviting cluster's authority, whose hash
(``pin``) it carries: who holds a token can tell the real cluster from somebody in between before
anything is sent, and the secret itself is never sent: requests carry a proof made with it.
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from typing import Final

import msgspec
from cryptography import x509

from clustermesh.certificates import attested
from clustermesh.pki import Authority

MARK: Final = "cmj1"
LONGEST: Final = 4096  # characters
ID: Final = re.compile(r"[0-9a-f]{16}")
_CONTEXT: Final = b"clustermesh join token 1\n"
_PROOF: Final = b"clustermesh join proof 1\n"


class TokenError(ValueError):
    """A token that cannot be used; the text says why and never holds the token."""


class Token(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``host`` invites ``guest``. ``addresses``: ``host:port`` of the join listener.

    ``ca`` is the hash of the host's authority, ``expires`` in Unix seconds, ``secret`` 32 bytes in
    base64url.
    """

    id: str
    host: str
    guest: str
    addresses: tuple[str, ...]
    ca: str
    expires: int
    secret: str

    def __repr__(self) -> str:
        return f"Token(id={self.id}, host={self.host}, guest={self.guest})"

    @property
    def key(self) -> bytes:
        """What proofs are made with: all that the host keeps of the secret."""
        return proof_key(self.secret)


def write(token: Token, authority: Authority) -> str:
    """The text to hand over."""
    payload = msgspec.json.encode(token)
    return ".".join((MARK, _encoded(payload), _encoded(authority.attest(_CONTEXT + payload))))


def read(text: str) -> Token:
    """What the text says, before anybody has checked the signature. Raises ``TokenError``."""
    payload, _ = _parts(text)
    try:
        token = msgspec.json.decode(payload, type=Token)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise TokenError("the token's content is not that of a join token") from None
    if not ID.fullmatch(token.id) or len(_decoded(token.secret)) != 32:
        raise TokenError("the token's content is not that of a join token")
    return token


def verify(text: str, root: x509.Certificate) -> None:
    """Raise ``TokenError`` unless the authority signed it."""
    payload, signature = _parts(text)
    if not attested(root, _CONTEXT + payload, signature):
        raise TokenError("the token was not signed by the authority that it names; it is forged")


def new_secret() -> str:
    """32 random bytes in base64url."""
    return _encoded(secrets.token_bytes(32))


def proof_key(secret: str) -> bytes:
    """A key made of the secret; the secret cannot be made of the key."""
    return hashlib.sha256(_PROOF + secret.encode()).digest()


def prove(key: bytes, purpose: str, message: str) -> str:
    """What shows that the sender of a message holds the secret, in hex."""
    return hmac.new(key, f"{purpose}\n{message}".encode(), hashlib.sha256).hexdigest()


def proves(key: bytes, purpose: str, message: str, proof: str) -> bool:
    """Whether the proof is right, in a time that does not depend on where it is wrong."""
    wanted = prove(key, purpose, message).encode()
    return hmac.compare_digest(wanted, proof.encode("utf-8", "replace"))


def _parts(text: str) -> tuple[bytes, bytes]:
    text = text.strip()
    if len(text) > LONGEST:
        raise TokenError(f"a token has at most {LONGEST} characters")
    mark, *rest = text.split(".")
    if mark != MARK or len(rest) != 2:
        raise TokenError(f"this is no join token, or a part of one; it begins with {MARK}")
    return _decoded(rest[0]), _decoded(rest[1])


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    try:
        found = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if not text or _encoded(found) != text:  # one spelling only
        raise TokenError("the token is damaged: copy the whole of it")
    return found
