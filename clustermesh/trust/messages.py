"""What two clusters tell each other when one joins the other, and what is believed of it. [pure]"""

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import yaml
from cryptography import x509

from clustermesh.certificates import (
    CertificateError,
    attested,
    is_authority,
    parsed,
    pem_of,
    pin,
    signed_by,
)
from clustermesh.pki import Authority
from clustermesh.trust import issuing
from clustermesh.trust.issuing import belongs
from kvstore.config import ConfigError, parse

JOIN: Final = "join"
FINISH: Final = "finish"
LONGEST: Final = 128 << 10  # bytes of a message
MOST_ROOTS: Final = 8
MOST_ENDPOINTS: Final = 16
_ANSWER: Final = b"clustermesh join answer 1\n"

T = TypeVar("T")


class JoinError(Exception):
    """Joining is refused; the text is a sentence for the operator of the other side."""


class Member(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A cluster as it presents itself. ``trust``: PEM of those who vouch for its server."""

    name: str
    id: int
    max_clusters: int
    endpoints: tuple[str, ...]
    host_aliases: dict[str, tuple[str, ...]] = {}
    trust: str


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The guest presents itself and asks for a certificate of ``remote-<guest>``."""

    member: Member
    csr: str


class Answer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The host does the same, and gives what was asked for. Bound to one token."""

    token: str
    expires: int
    member: Member
    certificate: str
    csr: str


class Finish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The guest gives what the host asked for."""

    certificate: str


class Envelope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From the guest: a message, whose token, and proof that the sender has its secret."""

    token: str
    purpose: str
    message: str
    proof: str


class Sealed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From the host: an answer, signed by its authority. It is good on any way it may come."""

    message: str
    signature: str


def decode(text: str | bytes, kind: type[T]) -> T:
    """Raises ``JoinError`` naming the field."""
    if len(text) > LONGEST:
        raise JoinError(f"the message has more than {LONGEST} bytes")
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise JoinError(f"the message cannot be understood: {str(error)[:200]}") from None


def encode(value: object) -> str:
    return msgspec.json.encode(value).decode()


def seal(answer: Answer, authority: Authority) -> Sealed:
    message = encode(answer)
    signature = authority.attest(_ANSWER + message.encode())
    return Sealed(message=message, signature=base64.b64encode(signature).decode())


def unseal(sealed: Sealed, *, ca: str, token: str, now: float) -> Answer:
    """The answer to a token, from the authority with that hash. Raises ``JoinError``."""
    answer = decode(sealed.message, Answer)
    root = pinned(answer.member.trust.encode(), ca)
    try:
        signature = base64.b64decode(sealed.signature, validate=True)
    except (binascii.Error, ValueError):
        signature = b""
    if root is None or not attested(root, _ANSWER + sealed.message.encode(), signature):
        raise JoinError("the answer is not signed by the authority that the token names")
    if answer.token != token:
        raise JoinError("the answer belongs to another token")
    if answer.expires <= now:
        raise JoinError("the answer has expired: ask for a new token")
    return answer


def pinned(bundle: bytes, ca: str) -> x509.Certificate | None:
    """The authority with that hash, if it is among these."""
    try:
        return next((one for one in parsed(bundle, "it") if pin(one) == ca), None)
    except CertificateError:
        return None


class Me(msgspec.Struct, frozen=True):
    """What the other side is measured against."""

    name: str
    id: int
    max_clusters: int


def check(member: Member, *, expected: str, me: Me, ids: Mapping[int, str]) -> None:
    """Whether the cluster can be a member of this mesh; ``ids`` are taken. Raises ``JoinError``."""
    _identity(member, expected, me)
    if (holder := ids.get(member.id, member.name)) != member.name:
        raise JoinError(f"id {member.id} is that of {holder}; every cluster needs its own")
    if not 1 <= len(member.endpoints) <= MOST_ENDPOINTS:
        raise JoinError(f"endpoints: expected 1 to {MOST_ENDPOINTS}")
    try:
        config = parse(client_file(member, Path("/")), beside=Path("/"))
    except ConfigError as error:
        raise JoinError(str(error)[:300]) from None
    if not all(one.secure for one in config.endpoints):
        raise JoinError("endpoints: expected https:// only")
    roots(member.trust)


def _identity(member: Member, expected: str, me: Me) -> None:
    try:
        issuing.cluster_name(member.name)
    except ValueError as error:
        raise JoinError(str(error)) from None
    if member.name != expected:
        raise JoinError(f"the token is for {expected}, not for {member.name}")
    if member.name == me.name:
        raise JoinError(f"{member.name} is this cluster's own name")
    if member.max_clusters != me.max_clusters:
        raise JoinError(
            f"max-connected-clusters: {member.max_clusters}, expected {me.max_clusters}; every"
            " cluster of a mesh needs the same"
        )
    if not 1 <= member.id <= me.max_clusters or member.id == me.id:
        raise JoinError(
            f"id: {member.id}; expected one of 1 to {me.max_clusters} other than {me.id}"
        )


def roots(trust: str) -> tuple[x509.Certificate, ...]:
    """The authorities of a bundle. Raises ``JoinError`` unless all are."""
    try:
        found = parsed(trust.encode(), "trust")
    except CertificateError as error:
        raise JoinError(str(error)) from None
    if len(found) > MOST_ROOTS or not all(map(is_authority, found)):
        raise JoinError(f"trust: expected at most {MOST_ROOTS} certificates, of authorities only")
    return tuple(found)


def check_certificate(pem: str, name: str, key: object, trust: str) -> bytes:
    """The chain issued for our key under our name by one of ``trust``; or ``JoinError``."""
    try:
        leaf, *chain = parsed(pem.encode(), "certificate")
    except CertificateError as error:
        raise JoinError(str(error)) from None
    if not belongs(leaf, name, key):  # type: ignore[arg-type]  # any public key compares
        raise JoinError(f"the certificate is not one of {name} for the key that was sent")
    if is_authority(leaf) or not any(signed_by(leaf, one) for one in roots(trust)):
        raise JoinError("the certificate is not signed by the authority that came with it")
    return pem_of(leaf, *chain)


def client_file(member: Member, directory: Path) -> bytes:
    """The etcd client YAML of contract kvstore 5.1, with its files beside it."""
    stem = directory / f"{member.name}.etcd-client"
    document: dict[str, object] = {
        "endpoints": list(member.endpoints),
        "trusted-ca-file": f"{stem}-ca.crt",
        "key-file": f"{stem}.key",
        "cert-file": f"{stem}.crt",
    }
    if member.host_aliases:
        document["cilium-host-aliases"] = {
            host: {"ips": list(ips)} for host, ips in member.host_aliases.items()
        }
    return yaml.safe_dump(document, sort_keys=False).encode()
